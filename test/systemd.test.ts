import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from './support/fixtures.js';

const UNITS = ['synapse-auto-compressor.service', 'synapse-auto-compressor.timer'];
const isThere = spawnSync('systemd-analyze', ['--version']).status === 0;

test(
  'systemd finds nothing wrong with the units',
  { skip: !isThere && 'there is no systemd-analyze' },
  async (t) => {
    const folder = await temporaryFolder(t);
    for (const unit of UNITS) {
      const source = new URL(`../docs/systemd/${unit}`, import.meta.url);
      await copyFile(fileURLToPath(source), join(folder, unit));
    }
    // What else is wrong on this machine is not ours: --man=no, and no generators' units.
    const { status, stderr } = spawnSync(
      'systemd-analyze',
      ['verify', '--man=no', ...UNITS.map((unit) => join(folder, unit))],
      { encoding: 'utf8' },
    );
    const ours = stderr.split('\n').filter((line) => line.includes('synapse-auto-compressor'));
    assert.deepEqual(ours, []);
    assert.equal(status, 0, stderr);
  },
);
