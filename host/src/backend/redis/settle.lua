#!lua
-- Settles a batch of one source: each entry by its disposition, all of them in this one step.
--
-- Redis takes nothing back: an error in the middle of a script leaves what was written before it. So everything that
-- could fail is tried first, and only then is anything written; the acks come last. Should an error strike all the
-- same, the batch is run again: something may then happen twice, but nothing is lost.
--
-- KEYS     1 stream  2 again  3 due  4 due bodies  5 dead  6 tries  7 stats  8 base of the inbox  9 index of states
--          10 receipt  11 timers  12.. state keys and streams to emit to, which the entries below name by their numbers
-- ARGV     1 group  2 consumer  3 inbox window in ms  4 dead letters at most  5 length of a state key's prefix
--          6 plan: the kind of each entry, see below; a capital for an entry of the lane `again`
--          7-9 the stream: entries, lowest id, highest id  10-12 again: the same  13 number of marks
--          14 has a host died with any of them in hand (0, 1)  15 timers that may wait
--          16 the plugin's digest  17 digests to tell apart
--          18.. ids on the stream; ids on again; marks (event id, payload hash); then what the kinds add
-- kinds    c commit with a mark and nothing else    s skip    u skip a duplicate    q quarantine
--          e commit: its shape, the version of the state that was read; then (field, value).. to set, the new version
--            among them; fields to delete; (number of the stream, event).. to emit; (as of a retry).. timers to set. The
--            shape is packed as SHAPE says: has a mark (0, 1), number of the state key (0 = none), how many to set, to
--            delete, to emit, timers
--          r retry: name for the due entry, delay in ms, 12 arguments of its record
--          d dead letter: 16 arguments of its record
-- returns  what became of each entry, a letter each: C(ommitted) S(kipped) R(etried) D(ead) Q(uarantined)
--          U (duplicate) X (conflict) T (stale) F(enced) O (full: too many timers would wait)

local ARGV, KEYS, redis, byte = ARGV, KEYS, redis, string.byte -- globals are slower to reach, and this is hot
local stream, again, due, due_bodies, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local tries, stats, seen_base, index, receipt = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local timers = KEYS[11]
local group, me, window, dead_max, plan = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[6]
local plugin, versions_max = ARGV[16], tonumber(ARGV[17])
local SHAPE, RETRY_ARGS, DEAD_ARGS = '>BI4I4I4I4I4', 14, 16
-- Four times as long as a host waits for an answer. Not longer, because a busy source writes thousands of receipts a
-- second; what is settled once more after that finds its entries fenced.
local RECEIPT_MS = 120000

-- 1. Settled before, and only the answer got lost?
local settled = redis.call('GET', receipt)
if settled then return settled end

-- Each lane has its ids in ARGV[first..last]; `left_out` are the positions of those that are not acked.
local now = clock()
local function lane(name, key, first, at)
    local last = first + tonumber(ARGV[at]) - 1
    return {
        name = name, key = key, first = first, last = last, low = ARGV[at + 1], high = ARGV[at + 2], left_out = {},
        all_mine = false, mine = false, acks = false, acks_first = 0, acks_last = 0, -- found below
    }
end
local input = lane('i', stream, 18, 7)
local back = lane('a', again, input.last + 1, 10)
local marks_first = back.last + 1
local marks_last = marks_first + 2 * tonumber(ARGV[13]) - 1

-- 2. The fence: which entries are pending under this very consumer? One question for all of a lane.
local function fence(l)
    local count = l.last - l.first + 1
    if count == 0 then return end
    -- Entries of this consumer that are not in the batch may lie between: ask for some more.
    local limit = count + 64
    local rows = redis.call('XPENDING', l.key, group, l.low, l.high, limit, me)
    l.all_mine = #rows == count
    for i = 1, #rows do
        l.all_mine = l.all_mine and rows[i][1] == ARGV[l.first + i - 1]
        if not l.all_mine then break end
    end
    if l.all_mine then return end
    local mine = {}
    for i = 1, #rows do mine[rows[i][1]] = true end
    if #rows == limit then
        for i = l.first, l.last do
            local id = ARGV[i]
            mine[id] = mine[id] or #redis.call('XPENDING', l.key, group, id, id, 1, me) == 1
        end
    end
    l.mine = mine
end
fence(input)
fence(back)

-- 3. Whatever could fail is tried before anything is written. Asking a key of the wrong type raises an error.
local function has(kind)
    return string.find(plan, '[' .. kind .. string.upper(kind) .. ']')
end

may('SET', receipt, '', 'PX', '1')
may('HSET', stats, '', '')
may('HDEL', stats, '')
may('XACK', stream, group, '0-1')
if back.last >= back.first then
    may('XACK', again, group, '0-1')
    may('XDEL', again, '0-1')
end
local crashed = ARGV[14] == '1'
if crashed then
    redis.call('HLEN', tries)
    may('HDEL', tries, 'i')
end
if has('r') then
    redis.call('ZCARD', due)
    redis.call('HLEN', due_bodies)
    may('ZADD', due, '0', '')
    may('HSET', due_bodies, '', '')
end
if has('q') then
    redis.call('XLEN', dead)
    may('XADD', dead, '*', 'class', '')
    may('XCLAIM', stream, group, QUARANTINE, '0', '0-1')
    redis.call('HLEN', tries)
    may('HSET', tries, 'i', '1')
end
local dead_before = 0
if has('d') then
    dead_before = redis.call('XLEN', dead)
    may('XADD', dead, '*', 'class', '')
    may('XTRIM', dead, 'MAXLEN', '1')
end

local ids, number = {}, 0
for i = marks_first, marks_last, 2 do
    number = number + 1
    ids[number] = ARGV[i]
end
local seen, bucket_now, bucket_there = recall(seen_base, window, now, ids)
if number > 0 then may_remember(bucket_now, bucket_there) end

-- The streams to emit to, by their numbers. One that was given the highest of all ids takes no more entries.
local targets = {}
local function check_target(number)
    if targets[number] then return end
    local key = KEYS[tonumber(number)]
    may('XADD', key, '*', 'event', '')
    local info = redis.pcall('XINFO', 'STREAM', key)
    if info.err and not string.find(info.err, 'no such key', 1, true) then error(info) end
    local last = not info.err and named(info)['last-generated-id'] or ''
    if string.find(last, '^18446744073709551615%-') then
        error({err = 'EXHAUSTED the stream ' .. key .. ' takes no more entries: its last id is ' .. last})
    end
    targets[number] = key
end

-- Is there room for so many timers more? What is due already and waits to be fetched counts, too: a handler whose timers
-- set timers fills that. `set` are those of the entries before this one.
local timers_wait, set = nil, 0
local function room_for(count)
    if not timers_wait then
        timers_wait = redis.call('ZCARD', timers) + redis.call('XLEN', again)
        redis.call('HLEN', due_bodies)
        may('ZADD', timers, '0', '')
        may('HSET', due_bodies, '', '')
    end
    return timers_wait + set + count <= tonumber(ARGV[15])
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

-- 4. Decide. Nothing is written in here, but each decision knows those before it: two entries may carry one event, or
-- write one state in turn. `work` is what is done once all are decided: functions and their arguments in turn.
local work, marked, marks_left_out = {}, {}, {}
local mark_at, extra_at = marks_first - 2, marks_last + 1

-- Takes apart what the kind `e` has at a position.
local function effects(at)
    local has_mark, key, sets, deletes, emits, set_timers = struct.unpack(SHAPE, ARGV[at])
    local deletes_at = at + 2 + 2 * sets
    local emits_at = deletes_at + deletes
    local timers_at = emits_at + 2 * emits
    return {
        has_mark = has_mark == 1, key = KEYS[key], version = ARGV[at + 1], writes = sets > 0, set_timers = set_timers,
        sets = at + 2, deletes = deletes_at, emits = emits_at, timers = timers_at,
        next = timers_at + RETRY_ARGS * set_timers,
    }
end

local function put_off(waiting, at)
    redis.call('HSET', due_bodies, ARGV[at], cmsgpack.pack({unpack(ARGV, at + 2, at + RETRY_ARGS - 1)}))
    redis.call('ZADD', waiting, whole(now + ARGV[at + 1]), ARGV[at])
end

local function commit(e)
    if e.writes then
        call_with(ARGV, e.sets, e.deletes - 1, 'HSET', e.key)
        call_with(ARGV, e.deletes, e.emits - 1, 'HDEL', e.key)
        if e.version == '0' then redis.call('ZADD', index, 0, string.sub(e.key, ARGV[5] + 1)) end
    end
    for i = e.emits, e.timers - 1, 2 do
        redis.call('XADD', targets[ARGV[i]], '*', 'event', ARGV[i + 1])
    end
    for i = e.timers, e.next - 1, RETRY_ARGS do put_off(timers, i) end
end

local function retry(at)
    put_off(due, at)
end

local function bury(at)
    redis.call('XADD', dead, '*', unpack(ARGV, at, at + DEAD_ARGS - 1))
end

local function quarantine(what)
    local key, id, name = unpack(what)
    set_aside(key, group, QUARANTINE, id, dead)
    local crashes, at, alone = read_tries(redis.call('HGET', tries, name .. id))
    if alone then redis.call('HSET', tries, name .. id, write_tries(crashes, at, false)) end
end

-- State keys of which an entry was to write and did not: those behind it saw a state that will never be. Their version
-- alone does not tell, because somebody else may have raised it just as much.
local broken = {}

-- Has the state the version that was read? T if not. Is there room for its timers? O if not. Remembers what will be.
local function check_effects(e)
    if e.key and (broken[e.key] or version(e.key) ~= e.version) then return 'T' end
    if e.set_timers > 0 and not room_for(e.set_timers) then return 'O' end
    for i = e.emits, e.timers - 1, 2 do check_target(ARGV[i]) end
    set = set + e.set_timers
    if e.writes then versions[e.key] = ARGV[e.sets + 1] end
    work[#work + 1], work[#work + 2] = commit, e
    return 'C'
end

-- A commit with the next mark: is its event known, are its effects still possible?
local function check_mark(mine, e)
    mark_at = mark_at + 2
    local id, hash = ARGV[mark_at], ARGV[mark_at + 1]
    local before, letter = seen[(mark_at - marks_first) / 2 + 1] or marked[id], 'C'
    if not mine then
        letter = 'F'
    elseif before then
        letter = before == hash and 'U' or 'X'
    elseif e then
        letter = check_effects(e)
    end
    if letter == 'C' then marked[id] = hash else marks_left_out[mark_at] = true end
    return letter
end

local decide = {
    [byte('c')] = function(mine) return check_mark(mine) end,
    [byte('e')] = function(mine)
        local e = effects(extra_at)
        extra_at = e.next
        local letter = 'F'
        if e.has_mark then letter = check_mark(mine, e) elseif mine then letter = check_effects(e) end
        if letter ~= 'C' and e.writes then broken[e.key] = true end
        return letter
    end,
    [byte('s')] = function(mine) return mine and 'S' or 'F' end,
    [byte('u')] = function(mine) return mine and 'U' or 'F' end,
    [byte('q')] = function(mine, l, id)
        if mine then work[#work + 1], work[#work + 2] = quarantine, {l.key, id, l.name} end
        return mine and 'Q' or 'F'
    end,
    [byte('r')] = function(mine)
        local at = extra_at
        extra_at = at + RETRY_ARGS
        if mine then work[#work + 1], work[#work + 2] = retry, at end
        return mine and 'R' or 'F'
    end,
    [byte('d')] = function(mine)
        local at = extra_at
        extra_at = at + DEAD_ARGS
        if mine then work[#work + 1], work[#work + 2] = bury, at end
        return mine and 'D' or 'F'
    end,
}

local ACKED = {C = true, S = true, R = true, D = true, U = true}
local answer, count = {}, {C = 0, S = 0, R = 0, D = 0, U = 0, Q = 0, X = 0, T = 0, F = 0, O = 0}
local input_at, back_at = input.first, back.first
for i = 1, #plan do
    local kind, l, at = byte(plan, i), input, input_at
    if kind < 97 then -- a capital letter
        kind, l, at = kind + 32, back, back_at
        back_at = at + 1
    else
        input_at = at + 1
    end
    local letter = decide[kind](l.all_mine or l.mine[ARGV[at]], l, ARGV[at])
    if not ACKED[letter] then l.left_out[at] = true end
    if (ACKED[letter] or letter == 'Q') and not l.all_mine then
        l.mine[ARGV[at]] = nil -- the same entry once more in this batch is settled already
    end
    count[letter] = count[letter] + 1
    answer[i] = letter
end
answer = table.concat(answer)
if count.C + count.S + count.R + count.D + count.U + count.Q == 0 then return answer end

-- 5. Write. The counters first: they alone could still fail, on a value that is no number, with nothing else done.
local function book(counter, by)
    if by > 0 then redis.call('HINCRBY', stats, counter, by) end
end

-- What each version of the plugin has committed, and since when; of the oldest ones only the sum is kept.
local function book_version()
    if count.C == 0 or plugin == '' then return end
    if redis.call('HINCRBY', stats, 'by:' .. plugin, count.C) ~= count.C then return end
    redis.call('HSET', stats, 'at:' .. plugin, whole(now))
    local fields, known, oldest, oldest_at = redis.call('HGETALL', stats), 0, nil, math.huge
    for i = 1, #fields, 2 do
        local digest = string.match(fields[i], '^at:(.+)$')
        local at = digest and tonumber(fields[i + 1])
        if at then
            known = known + 1
            if at < oldest_at then oldest, oldest_at = digest, at end
        end
    end
    if known > versions_max then
        redis.call('HINCRBY', stats, 'by:', redis.call('HGET', stats, 'by:' .. oldest) or 0)
        redis.call('HDEL', stats, 'by:' .. oldest, 'at:' .. oldest)
    end
end

-- Up before the first write, down after the last: what stays up broke off half way, by an error that was not foreseen or by
-- a torn append-only file.
redis.call('HINCRBY', stats, 'torn', 1)
local dropped = count.D > 0 and math.max(0, dead_before + count.D - dead_max) or 0
book('committed', count.C)
book_version()
book('skipped', count.S + count.U)
book('duplicates', count.U)
book('retried', count.R)
book('dropped', dropped)
book('timers', set)
for i = 1, #work, 2 do work[i](work[i + 1]) end
if dropped > 0 then redis.call('XTRIM', dead, 'MAXLEN', '=', dead_max) end

-- ARGV[first..last] without the groups of `size` that begin at a position in `left_out`: a list and its bounds.
local function kept(first, last, size, left_out)
    if next(left_out) == nil then return ARGV, first, last end
    local list = {}
    for i = first, last, size do
        if not left_out[i] then
            for j = i, i + size - 1 do list[#list + 1] = ARGV[j] end
        end
    end
    return list, 1, #list
end

remember(seen_base, window, now, bucket_now, bucket_there, kept(marks_first, marks_last, 2, marks_left_out))

for _, l in ipairs({input, back}) do
    l.acks, l.acks_first, l.acks_last = kept(l.first, l.last, 1, l.left_out)
    if crashed then
        local fields = {}
        for i = l.acks_first, l.acks_last do fields[#fields + 1] = l.name .. l.acks[i] end
        call_with(fields, 1, #fields, 'HDEL', tries)
    end
end

-- 6. The receipt, and the acks last. What came back to the handler is nobody else's: it goes with its ack.
redis.call('SET', receipt, answer, 'PX', RECEIPT_MS)
call_with(back.acks, back.acks_first, back.acks_last, 'XDEL', again)
call_with(input.acks, input.acks_first, input.acks_last, 'XACK', stream, group)
call_with(back.acks, back.acks_first, back.acks_last, 'XACK', again, group)
redis.call('HINCRBY', stats, 'torn', -1)
return answer
