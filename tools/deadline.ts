/**
 * Preloaded into test files (`node --import`): ends the process of one that takes too long, as a
 * test that hangs or a handle that was left open makes it. The runner's own `--test-timeout` bounds
 * single tests and knows nothing of what is left behind them.
 */
const maxFileMs = 300_000;

// Only there, and in a process that files share; the runner itself, and the processes that tests
// start, live as long as they need.
if (process.env.NODE_TEST_CONTEXT !== undefined || process.execArgv.includes('--test-isolation=none')) {
  setTimeout(() => {
    process.stderr.write(`${process.argv[1]} did not end within ${maxFileMs / 1000} s\n`);
    process.exit(1);
  }, maxFileMs).unref();
}
