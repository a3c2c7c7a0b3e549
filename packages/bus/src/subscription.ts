import type { Subscription } from './bus.ts';

/** A subscription that runs `leave` when it is closed, once. */
export function subscription(leave: () => void): Subscription {
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    leave();
  };
  return { close, [Symbol.dispose]: close };
}
