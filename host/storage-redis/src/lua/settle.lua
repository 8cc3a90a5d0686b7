#!lua
-- Settles a batch of one subscription: each entry by its disposition, all of them in this one step.
--
-- Redis has no rollback: an error in the middle of a script leaves what was written before it. So everything that could
-- fail is tried first, and only then is anything written; the acks come last. If an error occurs all the same, the
-- batch is sent again: something may then happen twice, but nothing is lost.
--
-- KEYS     1 stream  2 redelivery  3 due  4 due bodies  5 dead  6 tries  7 stats  8 base of the inbox  9 state index
--          10 receipt  11 timers  12.. state keys and streams to emit to, which the entries below name by their numbers
-- ARGV     1 group  2 consumer  3 inbox window in ms  4 dead letters at most, and their bytes
--          5 length of a state key's prefix
--          6 plan: the kind of each entry, see below; a capital for an entry of the redelivery queue
--          7-9 the stream: ids in one string, with spaces between; lowest id, highest id  10-12 redelivery: the same
--          13 deduplication keys in one string: event id and payload hash, 16 bytes each
--          14 numbers in one string: what `e` has
--          15 has a host crashed with any of them in flight (0, 1)  16 timers that may wait
--          17 the plugin's digest  18 digests to tell apart  19 1: all kinds are c, and no event id is there twice;
--          else 0, and behind it, if there is an n, the number of what hosts had agreed on
--          20.. what the kinds add
--          What each entry has goes in few long strings where it can: for each argument Redis makes an object and Lua a
--          string, which takes longer than to slice them from one.
-- kinds    c commit with a deduplication key and nothing else    s skip    u skip a duplicate    q quarantine
--          n skip, unless hosts have agreed on something else since    l leave it for another host
--          e commit: if it has a state key, the version that was read; (field, value).. to set, the new version first;
--            fields to delete; events to emit; (as of a retry).. timers to set. Among the numbers it has its shape,
--            packed as SHAPE says: has a deduplication key (0, 1), number of the state key (0 = none), how many to set,
--            to delete, to emit, timers; and then for each event the number of its stream, 4 bytes
--          r retry: name for the due entry, delay in ms, 12 arguments of its record
--          d dead letter: 16 arguments of its record
-- returns  what became of each entry, a letter each: C(ommitted) S(kipped) R(etried) D(ead) Q(uarantined)
--          U (duplicate) X (conflict) T (stale) F(enced) O (full: too many timers would wait) L(eft) W (outdated)

local ARGV, KEYS, redis, byte, unpacked = ARGV, KEYS, redis, string.byte, struct.unpack -- globals are slower to reach
local stream, redelivery, due, due_bodies, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local tries, stats, seen_base, index, receipt = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local timers = KEYS[11]
local group, me, window, plan = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[6]
local numbers, plugin, versions_max = ARGV[14], ARGV[17], tonumber(ARGV[18])
local SHAPE, RETRY_ARGS, DEAD_ARGS = '>BI4I4I4I4I4', 14, 16
-- Four times as long as a host waits for an answer. Not longer, because a busy subscription writes thousands of
-- receipts a second; what is settled once more after that finds its entries fenced.
local RECEIPT_MS = 120000

-- 1. Settled before, and only the reply was lost?
local settled = redis.call('GET', receipt)
if settled then return settled end

-- A queue: `ids` are its entries in the order of the plan, `at` how many the plan has come to, `left_out` the positions
-- of those that are not acked. Only if some are not this consumer's, `mine` tells which are.
local now = clock()
local function queue_of(name, key, at)
    return {
        name = name, key = key, text = ARGV[at], low = ARGV[at + 1], high = ARGV[at + 2],
        ids = {}, at = 0, left_out = {}, all_mine = true, mine = {}, acks = {},
    }
end
local input, back = queue_of('i', stream, 7), queue_of('a', redelivery, 10)

-- 2. The fence: which entries are pending under this very consumer? One query for all of a queue.
local function fence(l)
    if l.text == '' then return end
    -- Entries of this consumer that are not in the batch may lie between: ask for some more.
    local limit = #plan + 64
    local rows = redis.call('XPENDING', l.key, group, l.low, l.high, limit, me)
    for i = 1, #rows do l.ids[i] = rows[i][1] end
    -- Nearly always these are the batch and nothing else: one comparison tells.
    if table.concat(l.ids, ' ') == l.text then return end
    l.all_mine = false
    for i = 1, #rows do l.mine[rows[i][1]] = true end
    l.ids = {}
    for id in string.gmatch(l.text, '[^ ]+') do
        l.ids[#l.ids + 1] = id
        if #rows == limit then
            l.mine[id] = l.mine[id] or #redis.call('XPENDING', l.key, group, id, id, 1, me) == 1
        end
    end
end
fence(input)
fence(back)

-- 3. Whatever could fail is tried before anything is written. Asking a key of the wrong type raises an error.
local function has(kind)
    return string.find(plan, kind, 1, true) or string.find(plan, string.upper(kind), 1, true)
end

may('SET', receipt, '', 'PX', '1')
may('HSET', stats, '', '')
may('HDEL', stats, '')
may('XACK', stream, group, '0-1')
if back.text ~= '' then
    may('XACK', redelivery, group, '0-1')
    may('XDEL', redelivery, '0-1')
end
local crashed = ARGV[15] == '1'
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
local quarantines = has('q') or has('l')
if quarantines then
    may('XCLAIM', stream, group, QUARANTINE, '0', '0-1')
    redis.call('HLEN', tries)
    may('HSET', tries, 'i', '1')
end
local letters = (quarantines or has('d')) and letters_of(dead, stats, ARGV[4])

-- `dedup_keys` are event id, hash, event id, hash...
local dedup_keys, ids, number = {}, {}, #ARGV[13] / 32
for from = 1, number, PIECE do
    local count = math.min(number - from + 1, PIECE)
    local some = {unpacked(string.rep('c16c16', count), ARGV[13], 32 * (from - 1) + 1)}
    some[#some] = nil -- where it stopped
    if from == 1 then
        dedup_keys = some
    else
        for i = 1, #some do dedup_keys[#dedup_keys + 1] = some[i] end
    end
end
for i = 1, number do ids[i] = dedup_keys[2 * i - 1] end
local seen, box = recall(seen_base, window, now, ids)
if number > 0 then may_remember(box) end

-- 4. Decide. Nothing is written in here, but each decision knows those before it: two entries may carry one event, or
-- write one state in turn. What the commits write is noted in lists: a table for each commit would take longer.
local emits = {} -- stream, position of the event
local writes = {} -- state key, position of the first field and value to set, of the first to delete, end of those
local new_keys = {} -- 0, name of a state key that is new
local timers_at = {} -- position of a timer
local work = {} -- for the other kinds: function, argument
local set = 0 -- how many timers
local dedup_keys_left_out = {} -- positions of deduplication keys that are not kept
local answer, count = {}, {C = 0, S = 0, R = 0, D = 0, U = 0, Q = 0, X = 0, T = 0, F = 0, O = 0, L = 0, W = 0}

-- The time by which delays are counted, read once. While something waits, promote.lua stores the time every second: a
-- clock that is far ahead of that is not trusted until promote.lua has checked it.
local scheduled_from
local function schedule(waiting, at)
    if not scheduled_from then
        local time, off, latest = steady(stats, now)
        -- If no time was ever stored (an older Tidemill scheduled it) there is nothing to be far ahead of.
        if latest > 0 and time - latest > STEP_MS and redis.call('ZCARD', due) + redis.call('ZCARD', timers) > 0 then
            scheduled_from = latest
        else
            scheduled_from = time
            keep_steady(stats, time, off)
        end
    end
    redis.call('HSET', due_bodies, ARGV[at], cmsgpack.pack({unpack(ARGV, at + 2, at + RETRY_ARGS - 1)}))
    redis.call('ZADD', waiting, whole(scheduled_from + ARGV[at + 1]), ARGV[at])
end

local function exhausted(key)
    error({err = 'EXHAUSTED the stream ' .. key .. ' takes no more entries: its last id is the highest of all'})
end

local function decide_each()
    local committed_here = {}
    local dedup_key_at, number_at, extra_at = -1, 1, 20

    -- The streams to emit to, by their numbers. One that was given the highest of all ids takes no more entries. (XINFO
    -- STREAM would report it, and copy its first and last entry, which may be large.)
    local targets = {}
    local function target(number)
        if targets[number] then return targets[number] end
        local key = KEYS[number]
        may('XADD', key, '*', 'event', '')
        local last = redis.pcall('XRANGE', key, '18446744073709551615-0', '+', 'COUNT', 1)
        if last.err and string.find(last.err, 'WRONGTYPE', 1, true) then
            error({err = 'WRONGTYPE ' .. key .. ', which was to be emitted to, is no stream'})
        end
        -- A user without read access is denied when the first event is added.
        if last[1] then exhausted(key) end
        targets[number] = key
        return key
    end

    -- Is there room for so many timers more? What is due already and waits to be fetched counts, too: a handler whose
    -- timers set timers fills that.
    local timers_wait
    local function room_for(count)
        if not timers_wait then
            timers_wait = redis.call('ZCARD', timers) + redis.call('XLEN', redelivery)
            redis.call('HLEN', due_bodies)
            may('ZADD', timers, '0', '')
            may('HSET', due_bodies, '', '')
        end
        return timers_wait + set + count <= tonumber(ARGV[16])
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

    local function retry(at)
        schedule(due, at)
    end

    local function write_dead_letter(at)
        letters.add({unpack(ARGV, at, at + DEAD_ARGS - 1)})
    end

    local function leave(what)
        local key, id = unpack(what)
        if not set_aside(key, group, ELSEWHERE, id) then letters.add_without_body(id) end
    end

    -- An event that no host wants is skipped only if none has begun to want it since that was decided.
    local agreed = string.match(ARGV[19], '^0 (%d+)$')
    local outdated = agreed and agreed ~= (redis.call('HGET', stats, 'agreed') or '0')

    local function quarantine(what)
        local key, id, name = unpack(what)
        if not set_aside(key, group, QUARANTINE, id) then letters.add_without_body(id) end
        local crashes, at, alone = read_tries(redis.call('HGET', tries, name .. id))
        if alone then redis.call('HSET', tries, name .. id, write_tries(crashes, at, false)) end
    end

    -- State keys that an entry was to write and did not: entries behind it read a state that will never exist. The
    -- version alone does not show that, because another consumer may have raised it just as much.
    local broken = {}

    -- Is the event of the next deduplication key known?
    local function next_dedup_key(mine)
        dedup_key_at = dedup_key_at + 2
        if not mine then return 'F' end
        local before = seen[(dedup_key_at + 1) / 2] or committed_here[dedup_keys[dedup_key_at]]
        if not before then return 'C' end
        return before == dedup_keys[dedup_key_at + 1] and 'U' or 'X'
    end

    -- The deduplication key is remembered if its entry is committed.
    local function keep_dedup_key(letter)
        if letter == 'C' then committed_here[dedup_keys[dedup_key_at]] = dedup_keys[dedup_key_at + 1] else dedup_keys_left_out[dedup_key_at] = true end
        return letter
    end

    -- A commit with effects: does the state have the version that was read, is there room for the timers?
    local function commit(mine)
        local at = extra_at
        local has_dedup_key, key, sets, deletes, events, set_timers, streams_at = unpacked(SHAPE, numbers, number_at)
        key = KEYS[key]
        local sets_at = key and at + 1 or at
        local deletes_at = sets_at + 2 * sets
        local events_at = deletes_at + deletes
        local first_timer = events_at + events
        number_at, extra_at = streams_at + 4 * events, first_timer + RETRY_ARGS * set_timers

        local letter = mine and 'C' or 'F'
        if has_dedup_key == 1 then letter = next_dedup_key(mine) end
        if letter == 'C' and key and (broken[key] or version(key) ~= ARGV[at]) then letter = 'T' end
        if letter == 'C' and set_timers > 0 and not room_for(set_timers) then letter = 'O' end
        if has_dedup_key == 1 then keep_dedup_key(letter) end
        if letter ~= 'C' then
            if sets > 0 then broken[key] = true end
            return letter
        end
        for i = 0, events - 1 do
            emits[#emits + 1] = target(unpacked('>I4', numbers, streams_at + 4 * i))
            emits[#emits + 1] = events_at + i
        end
        if sets > 0 then
            versions[key] = ARGV[sets_at + 1]
            local last = #writes
            writes[last + 1], writes[last + 2], writes[last + 3], writes[last + 4] = key, sets_at, deletes_at, events_at
            if ARGV[at] == '0' then
                new_keys[#new_keys + 1] = 0
                new_keys[#new_keys + 1] = string.sub(key, ARGV[5] + 1)
            end
        end
        set = set + set_timers
        for i = first_timer, extra_at - 1, RETRY_ARGS do timers_at[#timers_at + 1] = i end
        return letter
    end

    local decide = {
        [byte('c')] = function(mine) return keep_dedup_key(next_dedup_key(mine)) end,
        [byte('e')] = commit,
        [byte('s')] = function(mine) return mine and 'S' or 'F' end,
        [byte('n')] = function(mine) return mine and (outdated and 'W' or 'S') or 'F' end,
        [byte('u')] = function(mine) return mine and 'U' or 'F' end,
        [byte('l')] = function(mine, l, id)
            if mine then work[#work + 1], work[#work + 2] = leave, {l.key, id} end
            return mine and 'L' or 'F'
        end,
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
            if mine then work[#work + 1], work[#work + 2] = write_dead_letter, at end
            return mine and 'D' or 'F'
        end,
    }

    local ACKED = {C = true, S = true, R = true, D = true, U = true}
    for i = 1, #plan do
        local kind, l = byte(plan, i), input
        if kind < 97 then kind, l = kind + 32, back end -- a capital letter
        local at = l.at + 1
        local id = l.ids[at]
        l.at = at
        local letter = decide[kind](l.all_mine or l.mine[id], l, id)
        if not ACKED[letter] then l.left_out[at] = true end
        if not l.all_mine and (ACKED[letter] or letter == 'Q' or letter == 'L') then
            l.mine[id] = nil -- the same entry once more in this batch is settled already
        end
        count[letter] = count[letter] + 1
        answer[i] = letter
    end
end

-- Nearly always a batch is just commits with deduplication keys, pending under this consumer, of events that are all
-- different and not known: each would be decided C. Then `decide_each` is skipped.
if ARGV[19] == '1' and input.all_mine and next(seen) == nil then
    count.C, answer[1] = #plan, string.rep('C', #plan)
else
    decide_each()
end
answer = table.concat(answer)
if count.C + count.S + count.R + count.D + count.U + count.Q + count.L == 0 then return answer end

-- 5. Write. The counters first: they alone could still fail, on a value that is no number, with nothing else done.
local function bump(counter, by)
    if by ~= 0 then redis.call('HINCRBY', stats, counter, by) end
end

-- What each version of the plugin has committed, and since when; of the oldest ones only the sum is kept.
local function count_version()
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

local function count_all(sign)
    bump('committed', sign * count.C)
    bump('skipped', sign * (count.S + count.U))
    bump('duplicates', sign * count.U)
    bump('retried', sign * count.R)
    bump('timers', sign * set)
end

-- An entry with the highest of all ids may have been deleted since: then adding one fails, after some were added to
-- other streams. All are removed again, in this same step.
local function emit_all()
    local ids = {}
    for i = 1, #emits, 2 do
        local id = redis.pcall('XADD', emits[i], '*', 'event', ARGV[emits[i + 1]])
        if type(id) == 'table' then
            for j = 1, i - 2, 2 do redis.pcall('XDEL', emits[j], ids[j]) end
            count_all(-1)
            if plugin ~= '' then bump('by:' .. plugin, -count.C) end
            bump('torn', -1)
            exhausted(emits[i])
        end
        ids[i] = id
    end
end

-- Raised before the first write, lowered after the last: it stays raised if the script broke off half way, by an
-- unforeseen error or a torn append-only file.
redis.call('HINCRBY', stats, 'torn', 1)
count_all(1)
count_version()
emit_all()
-- A name in the index without a state does no harm, a state that is not in the index could not be listed.
call_with(new_keys, 1, #new_keys, 'ZADD', index)
for i = 1, #writes, 4 do
    call_with(ARGV, writes[i + 1], writes[i + 2] - 1, 'HSET', writes[i])
    call_with(ARGV, writes[i + 2], writes[i + 3] - 1, 'HDEL', writes[i])
end
for i = 1, #timers_at do schedule(timers, timers_at[i]) end
for i = 1, #work, 2 do work[i](work[i + 1]) end
if letters then letters.close() end

-- A list without the groups of `size` that begin at a position in `left_out`.
local function kept(list, size, left_out)
    if next(left_out) == nil then return list end
    local some = {}
    for i = 1, #list, size do
        if not left_out[i] then
            for j = i, i + size - 1 do some[#some + 1] = list[j] end
        end
    end
    return some
end

local remembered = kept(dedup_keys, 2, dedup_keys_left_out)
remember(box, remembered, 1, #remembered)

for _, l in ipairs({input, back}) do
    l.acks = kept(l.ids, 1, l.left_out)
    if crashed then
        local fields = {}
        for i = 1, #l.acks do fields[i] = l.name .. l.acks[i] end
        call_with(fields, 1, #fields, 'HDEL', tries)
    end
end

-- 6. The receipt, and the acks last. Redelivery entries have only this reader: they are deleted with their ack.
redis.call('SET', receipt, answer, 'PX', RECEIPT_MS)
call_with(back.acks, 1, #back.acks, 'XDEL', redelivery)
call_with(input.acks, 1, #input.acks, 'XACK', stream, group)
call_with(back.acks, 1, #back.acks, 'XACK', redelivery, group)
redis.call('HINCRBY', stats, 'torn', -1)
return answer
