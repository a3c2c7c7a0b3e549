export { type Amounts, type LateIngress, Ledger, leaseMs, limiterOf } from './ledger.ts';
export { Members } from './members.ts';
export { Purse } from './purse.ts';
export { fairShare, type Share } from './shares.ts';
