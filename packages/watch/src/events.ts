import { Ring } from './ring.ts';

export type EventLevel = 'notice' | 'warning' | 'critical' | 'good';
export type EventKind = 'process' | 'instance' | 'store' | 'config' | 'order' | 'bus' | 'errors';

/** Something that happened, in a sentence. */
export interface GatewayEvent {
  readonly id: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly kind: EventKind;
  readonly level: EventLevel;
  /** The process, instance or model it is about. */
  readonly subject: string;
  readonly text: string;
}

const maxEvents = 5000;

/** The last 5,000 things that happened. */
export class Events {
  readonly #ring = new Ring<GatewayEvent>(maxEvents);
  readonly #onEvent: (event: GatewayEvent) => void;

  constructor(onEvent: (event: GatewayEvent) => void) {
    this.#onEvent = onEvent;
  }

  add(event: Omit<GatewayEvent, 'id'>): void {
    const numbered = { id: this.#ring.total + 1, ...event };
    this.#ring.push(numbered);
    this.#onEvent(numbered);
  }

  /** The newest first. */
  latest(max: number, matches: (event: GatewayEvent) => boolean = () => true): GatewayEvent[] {
    const found: GatewayEvent[] = [];
    this.#ring.backwards((event) => {
      if (matches(event)) found.push(event);
      return found.length < max;
    });
    return found;
  }
}
