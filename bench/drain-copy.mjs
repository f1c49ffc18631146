// Stands in for psql where there is none: runs a COPY … TO STDOUT and drops what it gives.
// node drain-copy.mjs DSN SQL
import pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';

const [connectionString, sql] = process.argv.slice(2);
const client = new pg.Client({ connectionString, options: process.env.PGOPTIONS });
await client.connect();
for await (const chunk of client.query(copyTo(sql))) void chunk;
await client.end();
