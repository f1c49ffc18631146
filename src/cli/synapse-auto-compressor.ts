#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8';
import { main } from './main.js';

// As in synapse-compress-state.ts.
setFlagsFromString('--semi-space-growth-factor=1');
// The old tool's second program.
await main(['auto', ...process.argv.slice(2)]);
