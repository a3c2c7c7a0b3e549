export { type Amounts, Ledger, leaseMs, limiterOf } from './ledger.ts';
export { Members } from './members.ts';
export { Purse, type Share } from './purse.ts';
export { fairShare } from './shares.ts';
