#!/usr/bin/env node
import { main } from './main.js';

// The old tool's second program.
await main(['auto', ...process.argv.slice(2)]);
