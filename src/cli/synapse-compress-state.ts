#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8';
import { main } from './main.js';

// Buffers are all that is short-lived here; a young generation that grows for them costs 20 MB.
setFlagsFromString('--semi-space-growth-factor=1');
await main(process.argv.slice(2));
