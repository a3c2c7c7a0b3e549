import { checks } from './checks/index.ts';
import { openClusterSite } from './cluster-site.ts';

/**
 * `node e2e/src/deploy/check.ts EXAMPLE [NAMESPACE]`: the check of an example that was deployed
 * from deploy/simulated/EXAMPLE. Exit 0: it passed; 1: it did not; 64: wrong usage.
 */
const [example = '', namespace = 'default'] = process.argv.slice(2);
const check = checks[example];
if (!check) {
  console.error(`usage: check.ts EXAMPLE [NAMESPACE]; examples: ${Object.keys(checks).join(', ')}`);
  process.exit(64);
}
try {
  await using site = await openClusterSite(namespace);
  await check(site);
  console.log(`PASSED ${example} in namespace ${namespace}`);
} catch (error) {
  console.error(error);
  const [why] = (error instanceof Error ? error.message : String(error)).split('\n');
  console.error(`FAILED ${example} in namespace ${namespace}: ${why}`);
  process.exit(1);
}
