// The clock of a drain: it waits for the word, begins with the first event, and ends when all are acknowledged.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

let begun;

/** Says that the peer is connected, and waits until the harness has looked at Redis' clock. */
export async function ready() {
  console.log("ready");
  for await (const word of createInterface({ input: process.stdin })) {
    if (word.trim() !== "go") throw new Error("the word on stdin is go");
    return;
  }
}

/** An event is in hand. Only the first one counts. */
export function begin() {
  begun ??= { at: performance.now(), cpu: process.cpuUsage() };
}

/** All events are acknowledged. */
export function end(events, settings) {
  const seconds = (performance.now() - begun.at) / 1000;
  const { user, system } = process.cpuUsage(begun.cpu);
  const [, kib] = readFileSync("/proc/self/status", "utf8").match(/VmHWM:\s+(\d+) kB/);
  console.log(JSON.stringify({ events, seconds, cpu_s: (user + system) / 1e6, peak_mib: kib / 1024, settings }));
}
