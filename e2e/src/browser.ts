import { findBinary } from '@llm-gateway/testing';
import axe from 'axe-core';
import { type Browser, chromium } from 'playwright-core';

const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Starts the Chromium of the machine. Dispose it. */
export async function startBrowser(): Promise<Browser> {
  return await chromium.launch({ executablePath: await findBinary('chromium'), args: flags });
}

/** The script that finds what keeps people with disabilities from using a page: `axe`. */
export const axeSource = axe.source;
