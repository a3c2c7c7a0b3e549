/**
 * `npm run bench`: measures the gateway and other proxies and writes the report. `--help` names
 * the flags.
 */
import { measureChoices } from './choice/choice.ts';
import { measureFairness } from './clients/fairness.ts';
import { measureLimits } from './clients/limits.ts';
import { readFlags } from './flags.ts';
import { profileHotPaths } from './profile/profile.ts';
import { run } from './run.ts';

const flags = readFlags(process.argv.slice(2));
if ('say' in flags) {
  (flags.exitCode === 0 ? console.log : console.error)(flags.say);
  process.exit(flags.exitCode);
}
// What was started goes with this process in an orderly exit, which a signal by itself is not.
process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));
if (flags.profile) await profileHotPaths();
else if (flags.choice !== null) await measureChoices({ ...flags.choice, quick: flags.quick });
else if (flags.clients === 'fairness') await measureFairness(flags);
else if (flags.clients === 'limits') await measureLimits(flags);
else await run(flags);
