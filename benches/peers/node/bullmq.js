// BullMQ in one process: `node bullmq.js CONCURRENCY fill|drain URL EVENTS`. What the harness wants of it is in
// benches/peers/README.md.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Queue, Worker } from "bullmq";
import Redis from "ioredis";

import { check, userCreated } from "./event.js";
import { begin, end, ready } from "./span.js";

const QUEUE = "peer";
const [concurrency, verb, url, count] = process.argv.slice(2);
const events = Number(count);

function version(name) {
  // Not every package lets its package.json be imported.
  const main = createRequire(import.meta.url).resolve(name);
  const root = main.slice(0, main.lastIndexOf(join("node_modules", name)) + join("node_modules", name).length);
  return JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version;
}

async function fill() {
  const connection = new Redis(url);
  const queue = new Queue(QUEUE, { connection });
  for (let start = 0; start < events; start += 1000) {
    const jobs = [];
    for (let number = start; number < Math.min(start + 1000, events); number++) {
      const data = userCreated(number);
      // A job that is kept keeps its id from being added again; one that is removed does not.
      const opts = { jobId: data.event_id, attempts: 3, backoff: { type: "exponential", delay: 1000 }, removeOnComplete: true };
      jobs.push({ name: data.event_type, data, opts });
    }
    await queue.addBulk(jobs);
  }
  await queue.close();
  connection.disconnect();
}

async function drain() {
  const connection = new Redis(url, { maxRetriesPerRequest: null });
  const handle = async (job) => {
    begin();
    check(job.data);
  };
  const worker = new Worker(QUEUE, handle, { connection, concurrency: Number(concurrency), autorun: false });
  await worker.waitUntilReady();
  let completed = 0;
  const all = new Promise((resolve, reject) => {
    // It is told when Redis has answered that the job is completed.
    worker.on("completed", () => ++completed === events && resolve());
    worker.on("failed", (_job, error) => reject(error));
    worker.on("error", reject);
  });
  await ready();
  worker.run();
  await all;
  const versions = `BullMQ ${version("bullmq")}, ioredis ${version("ioredis")}, Node ${process.versions.node}`;
  end(events, `${versions}; one process, concurrency ${concurrency}, attempts 3, completed jobs removed`);
  // The harness has its line; a graceful close takes seconds and measures nothing.
  process.exit(0);
}

await { fill, drain }[verb]();
process.exit(0);
