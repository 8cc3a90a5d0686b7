#!lua
-- Settles a batch of one source: each entry by its disposition, all of them in this one step.
--
-- Redis takes nothing back: an error in the middle of a script leaves what was written before it. So everything that
-- could fail is tried first, and only then is anything written; the acks come last. Should an error strike all the
-- same, the batch is run again: something may then happen twice, but nothing is lost.
--
-- KEYS     1 stream  2 again  3 due  4 due bodies  5 dead  6 tries  7 stats  8 base of the inbox  9 index of states
--          10 receipt  11.. state keys and streams to emit to, which the entries below name by their numbers
-- ARGV     1 group  2 consumer  3 inbox window in ms  4 dead letters at most  5 length of a state key's prefix
--          6 the lane of each entry: i(nput), a(gain)  7 the kind of each entry, see below
--          8-10 lane i: entries, lowest id, highest id  11-13 lane a: the same  14 number of marks
--          15.. ids of lane i; ids of lane a; marks (event id, payload hash); then what the kinds add
-- kinds    c commit with a mark and nothing else    s skip    l release
--          e commit: has a mark (0, 1), number of the state key (0 = none), its version, number of values set,
--            of values deleted, of emits; then (name, value).. name.. (number of the stream, event)..
--          r retry: name for the due entry, delay in ms, 10 arguments of its record
--          d dead letter: 14 arguments of its record
-- returns  what became of each entry, a letter each: C(ommitted) S(kipped) R(etried) D(ead) L (released)
--          U (duplicate) X (conflict) T (stale) F(enced)

local stream, again, due, due_bodies, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local tries, stats, seen_base, index, receipt = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local group, me, window, dead_max = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local lanes, kinds = ARGV[6], ARGV[7]
local RETRY_ARGS, DEAD_ARGS = 12, 14
local COUNTERS = {'committed', 'skipped', 'duplicates', 'retried', 'dropped'}

-- 1. Settled before, and only the answer got lost?
local settled = redis.call('GET', receipt)
if settled then return settled end

local now = clock()
local lane = {
    i = {key = stream, count = tonumber(ARGV[8]), low = ARGV[9], high = ARGV[10], at = 15, acks = {}},
    a = {key = again, count = tonumber(ARGV[11]), low = ARGV[12], high = ARGV[13], acks = {}},
}
lane.a.at = lane.i.at + lane.i.count
local mark_at = lane.a.at + lane.a.count
local marks_end = mark_at + 2 * tonumber(ARGV[14])
local extra_at = marks_end

-- 2. The fence: which entries are pending under this very consumer? One question for all of a lane.
local function fence(l)
    l.mine = {}
    if l.count == 0 then return end
    -- Entries of this consumer that are not in the batch may lie between: ask for some more.
    local limit = l.count + 64
    local rows = redis.call('XPENDING', l.key, group, l.low, l.high, limit, me)
    for i = 1, #rows do l.mine[rows[i][1]] = true end
    if #rows < limit then return end
    for i = l.at, l.at + l.count - 1 do
        local id = ARGV[i]
        l.mine[id] = l.mine[id] or #redis.call('XPENDING', l.key, group, id, id, 1, me) == 1
    end
end
fence(lane.i)
fence(lane.a)

-- 3. Whatever could fail is tried before anything is written. Asking a key of the wrong type raises an error.
local function has(kind)
    return string.find(kinds, kind, 1, true)
end

may('SET', receipt, '', 'PX', '1')
may('XACK', stream, group, '0-1')
may('HSET', stats, 'committed', '0')
if lane.a.count > 0 then
    may('XACK', again, group, '0-1')
    may('XDEL', again, '0-1')
end
local booked = redis.call('HMGET', stats, unpack(COUNTERS))
for i = 1, #COUNTERS do
    booked[i] = tonumber(booked[i] or '0') or error({err = 'ERR no number in ' .. stats .. ' for ' .. COUNTERS[i]})
end
local crashed = redis.call('HLEN', tries) > 0
if crashed then may('HDEL', tries, 'i') end
if has('r') then
    redis.call('ZCARD', due)
    redis.call('HLEN', due_bodies)
    may('ZADD', due, '0', '')
    may('HSET', due_bodies, '', '')
end
if has('d') then
    redis.call('XLEN', dead)
    may('XADD', dead, '*', 'class', '')
    may('XTRIM', dead, 'MAXLEN', '1')
end
if mark_at < marks_end then
    local key = bucket(seen_base, window, now, 0)
    may('HSET', key, '', '')
    may('PEXPIRE', key, '1')
    may('UNLINK', bucket(seen_base, window, now, 2))
end

-- A stream that someone has given the highest of all ids takes no entry any more.
local checked = {}
local function check_target(key)
    if checked[key] then return end
    may('XADD', key, '*', 'event', '')
    local info = redis.pcall('XINFO', 'STREAM', key)
    if info.err and not string.find(info.err, 'no such key', 1, true) then error(info) end
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' and string.find(info[i + 1], '^18446744073709551615%-') then
            error({err = 'ERR the stream ' .. key .. ' takes no entries any more: its last id is ' .. info[i + 1]})
        end
    end
    checked[key] = true
end

local versions = {}
local function version(key)
    if next(versions) == nil then
        -- One state key stands for all: what a user may do goes by prefixes.
        may('HSET', key, 'v', '1')
        may('HDEL', key, '=')
        may('ZADD', index, '0', '')
        redis.call('ZCARD', index)
    end
    versions[key] = versions[key] or redis.call('HGET', key, 'v') or '0'
    return versions[key]
end

local ids = {}
for i = mark_at, marks_end - 1, 2 do ids[#ids + 1] = ARGV[i] end
local seen = recall(seen_base, window, now, ids)

-- What each entry does once all are decided: functions and their arguments.
local work = {}
local function later(run, at, extra)
    work[#work + 1] = {run, at, extra}
end

local function commit(at, new_version)
    local key, sets, deletes, emits = KEYS[tonumber(ARGV[at + 1])], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
    local names = at + 6 + 2 * sets
    if new_version then
        redis.call('HSET', key, 'v', new_version)
        for i = at + 6, names - 1, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
        for i = names, names + deletes - 1 do redis.call('HDEL', key, ARGV[i]) end
        if new_version == '1' then redis.call('ZADD', index, 0, string.sub(key, ARGV[5] + 1)) end
    end
    local first = names + deletes
    for i = first, first + 2 * emits - 1, 2 do
        redis.call('XADD', KEYS[tonumber(ARGV[i])], '*', 'event', ARGV[i + 1])
    end
end

local function retry(at)
    redis.call('HSET', due_bodies, ARGV[at], cmsgpack.pack({unpack(ARGV, at + 2, at + RETRY_ARGS - 1)}))
    redis.call('ZADD', due, whole(now + ARGV[at + 1]), ARGV[at])
end

local function bury(at)
    redis.call('XADD', dead, '*', unpack(ARGV, at, at + DEAD_ARGS - 1))
end

-- 4. Decide. Nothing is written in here, but each decision knows those before it: two entries may carry one event, or
-- write one state in turn.
local new_marks, marked = {}, {}

-- Is the event of this mark known? Answers the letter for that.
local function known(number)
    local id, hash = ids[number], ARGV[mark_at + 2 * number - 1]
    local before = seen[number] or marked[id]
    if not before then return nil end
    return before == hash and 'U' or 'X'
end

local function mark(number)
    local id, hash = ids[number], ARGV[mark_at + 2 * number - 1]
    marked[id] = hash
    new_marks[#new_marks + 1] = id
    new_marks[#new_marks + 1] = hash
end

-- Does the state have the version that was read? Answers the letter if not, else what comes after the decision.
local function check_effects(at)
    local key, writes = KEYS[tonumber(ARGV[at + 1])], ARGV[at + 3] + ARGV[at + 4]
    if key and version(key) ~= ARGV[at + 2] then return 'T' end
    local emits_at = at + 6 + 2 * ARGV[at + 3] + ARGV[at + 4]
    for i = emits_at, emits_at + 2 * ARGV[at + 5] - 1, 2 do check_target(KEYS[tonumber(ARGV[i])]) end
    if key and writes > 0 then versions[key] = whole(versions[key] + 1) end
    later(commit, at, key and writes > 0 and versions[key])
    return nil
end

local mark_number = 0
local function decide(kind, fenced)
    local at, number = extra_at, nil
    if kind == 'e' then
        extra_at = at + 6 + 2 * ARGV[at + 3] + ARGV[at + 4] + 2 * ARGV[at + 5]
    elseif kind == 'r' then
        extra_at = at + RETRY_ARGS
    elseif kind == 'd' then
        extra_at = at + DEAD_ARGS
    end
    if kind == 'c' or (kind == 'e' and ARGV[at] == '1') then
        mark_number = mark_number + 1
        number = mark_number
    end
    if kind == 'l' then return 'L' end
    if fenced then return 'F' end
    if kind == 's' then return 'S' end
    if kind == 'r' then
        later(retry, at)
        return 'R'
    elseif kind == 'd' then
        later(bury, at)
        return 'D'
    end
    local letter = number and known(number) or (kind == 'e' and check_effects(at)) or nil
    if letter then return letter end
    if number then mark(number) end
    return 'C'
end

local ACKED = {C = true, S = true, R = true, D = true, U = true}
local answer, count = {}, {C = 0, S = 0, R = 0, D = 0, U = 0, L = 0, X = 0, T = 0, F = 0}
for i = 1, #kinds do
    local l = lane[string.sub(lanes, i, i)]
    local id = ARGV[l.at]
    l.at = l.at + 1
    local letter = decide(string.sub(kinds, i, i), not l.mine[id])
    if ACKED[letter] then
        l.acks[#l.acks + 1] = id
        -- The same entry a second time in this batch is settled already.
        l.mine[id] = nil
    end
    count[letter] = count[letter] + 1
    answer[i] = letter
end
answer = table.concat(answer)
if #lane.i.acks + #lane.a.acks == 0 then return answer end

-- 5. Write.
for i = 1, #work do work[i][1](work[i][2], work[i][3]) end
remember(seen_base, window, now, new_marks)

local dropped = 0
if count.D > 0 and redis.call('XLEN', dead) > dead_max then
    dropped = redis.call('XTRIM', dead, 'MAXLEN', '=', dead_max)
end
local change, totals = {count.C, count.S + count.U, count.U, count.R, dropped}, {}
for i = 1, #COUNTERS do
    if change[i] > 0 then
        totals[#totals + 1] = COUNTERS[i]
        totals[#totals + 1] = whole(booked[i] + change[i])
    end
end
call_with(totals, 'HSET', stats)

if crashed then
    local fields = {}
    for name, l in pairs(lane) do
        for i = 1, #l.acks do fields[#fields + 1] = name .. l.acks[i] end
    end
    call_with(fields, 'HDEL', tries)
end

-- 6. The receipt, and the acks last. What came back to the handler is nobody else's: it goes with its ack.
redis.call('SET', receipt, answer, 'PX', '600000')
call_with(lane.a.acks, 'XDEL', again)
call_with(lane.i.acks, 'XACK', stream, group)
call_with(lane.a.acks, 'XACK', again, group)
return answer
