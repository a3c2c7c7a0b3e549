/**
 * What is repeated so that others see that this process lives, and how often it looks at itself.
 */
const periodMs = 1_000;

const calls = new Set<() => void>();
let timer: NodeJS.Timeout | undefined;

/**
 * Calls `call` each second, the first time after a second at most, until disposed. All such calls
 * of a process share one timer, so that it wakes once and its messages leave in one write. Does not
 * keep the process alive. `call` must not throw.
 */
export function eachSecond(call: () => void): Disposable {
  // The same function may be wanted twice.
  const own = () => call();
  calls.add(own);
  timer ??= setInterval(() => {
    for (const one of calls) one();
  }, periodMs).unref();
  return {
    [Symbol.dispose]() {
      calls.delete(own);
      if (calls.size > 0) return;
      clearInterval(timer);
      timer = undefined;
    },
  };
}
