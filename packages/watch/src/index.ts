export type { DependencyRow } from './dependencies.ts';
export type { EventKind, EventLevel, GatewayEvent } from './events.ts';
export type { FlowRow } from './flows.ts';
export { type InstanceRow, type InstanceState, instanceStates } from './instances.ts';
export type { ProcessRow } from './processes.ts';
export { matcher, type RequestRow } from './requests.ts';
export type { Columns, Window } from './series.ts';
export type { Level, Verdict } from './verdict.ts';
export { type Explanation, type Snapshot, Watch } from './watch.ts';
