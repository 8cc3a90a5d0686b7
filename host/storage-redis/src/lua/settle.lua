#!lua
-- Settles a batch of one subscription: each entry by its op, all of them in this one step. Before this stand fence.lua,
-- effects.lua and outcomes.lua, whose functions it calls.
--
-- Redis has no rollback: an error in the middle of a script leaves what was written before it. So everything that could
-- fail is tried first, and only then is anything written; the acks come last. If an error occurs all the same, the
-- batch is sent again: something may then happen twice, but nothing is lost.
--
-- KEYS     stream  redelivery  due  due_bodies  dead  crashes (of hosts, with an entry in flight)  stats
--          inbox (base of its buckets)  state_index  receipt  timers
--          more: state keys and streams to emit to, which the entries below name by their numbers
-- ARGV     group  consumer  window_ms (of the inbox)  letter_bounds (dead letters at most, and their bytes)
--          state_prefix_len (length of a state key's prefix)
--          ops (one for each entry, see below; a capital for an entry of the redelivery queue)
--          stream_ids (in one string, with spaces between)  stream_low  stream_high (lowest and highest of them)
--          redelivery_ids  redelivery_low  redelivery_high
--          dedup_keys (in one string: event id and payload hash, 16 bytes each)  shapes (in one string: what `e` has)
--          crashed (1: a host has crashed with one of these in flight)  timers_max (that may wait)
--          plugin (its digest)  versions_max (digests to tell apart)
--          plain (1: all ops are c, and no event id is there twice; else 0, and behind it, if there is an n, the number
--          of what hosts had agreed on)
--          more: what the ops add
--          What each entry has goes in few long strings where it can: for each argument Redis makes an object and Lua a
--          string, which takes longer than to slice them from one.
-- ops      c commit with a deduplication key and nothing else    s skip    u skip a duplicate    q quarantine
--          n skip, unless hosts have agreed on something else since    l leave it for another host
--          e commit: if it has a state key, the version that was read; (field, value).. to set, the new version first;
--            fields to delete; events to emit; (as of a retry).. timers to set. Among `shapes` it has its own, packed
--            as SHAPE says: has a deduplication key (0, 1), number of the state key (0 = none), how many to set, to
--            delete, to emit, timers; and then for each event the number of its stream, 4 bytes
--          r retry: name for the due entry, delay in ms, 12 arguments of its record
--          d dead letter: 16 arguments of its record
-- returns  the outcome of each entry, a letter each: C(ommitted) S(kipped) R(etried) D(ead) Q(uarantined)
--          U (duplicate) X (conflict) T (stale) F(enced) O (full: too many timers would wait) L(eft) W (outdated)

-- Four times as long as a host waits for an answer. Not longer, because a busy subscription writes thousands of
-- receipts a second; what is settled once more after that finds its entries fenced.
local RECEIPT_MS = 120000

-- 1. Settled before, and only the reply was lost?
local settled = redis.call('GET', receipt)
if settled then return settled end

-- 2. The fence.
local input = queue_of('i', stream, stream_ids, stream_low, stream_high)
local back = queue_of('a', redelivery, redelivery_ids, redelivery_low, redelivery_high)
fence(input)
fence(back)

-- 3. Whatever could fail is tried before anything is written. Asking a key of the wrong type raises an error.
local function has(op)
    return string.find(ops, op, 1, true) or string.find(ops, string.upper(op), 1, true)
end

may('SET', receipt, '', 'PX', '1')
may('HSET', stats, '', '')
may('HDEL', stats, '')
may('XACK', stream, group, '0-1')
if back.text ~= '' then
    may('XACK', redelivery, group, '0-1')
    may('XDEL', redelivery, '0-1')
end
if crashed == '1' then
    redis.call('HLEN', crashes)
    may('HDEL', crashes, 'i')
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
    redis.call('HLEN', crashes)
    may('HSET', crashes, 'i', '1')
end
letters = (quarantines or has('d')) and letters_of(dead, stats, letter_bounds)

-- The deduplication keys as a list: event id, hash, event id, hash, ...
local dedup_list, event_ids, number = {}, {}, #dedup_keys / 32
for from = 1, number, PIECE do
    local piece = math.min(number - from + 1, PIECE)
    local some = {unpacked(string.rep('c16c16', piece), dedup_keys, 32 * (from - 1) + 1)}
    some[#some] = nil -- where it stopped
    if from == 1 then
        dedup_list = some
    else
        for i = 1, #some do dedup_list[#dedup_list + 1] = some[i] end
    end
end
for i = 1, number do event_ids[i] = dedup_list[2 * i - 1] end
local seen, box = recall(inbox, tonumber(window_ms), now, event_ids)
if number > 0 then may_remember(box) end

-- 4. The outcomes. Nearly always a batch is just commits with deduplication keys, pending under this consumer, of
-- events that are all different and not known: each would be committed. Then they are not gone through.
local answer
if plain == '1' and input.all_mine and next(seen) == nil then
    count.C, answer = #ops, string.rep('C', #ops)
else
    answer = outcomes_of(input, back, dedup_list, seen)
end
if count.C + count.S + count.R + count.D + count.U + count.Q + count.L == 0 then return answer end

-- 5. Write. The counters first: they alone could still fail, on a value that is no number, with nothing else done.
-- `torn` is raised before the first write, lowered after the last: it stays raised if the script broke off half way, by
-- an unforeseen error or a torn append-only file.
redis.call('HINCRBY', stats, 'torn', 1)
count_all(1)
count_version()
emit_all()
-- A name in the index without a state does no harm, a state that is not in the index could not be listed.
call_with(new_keys, 1, #new_keys, 'ZADD', state_index)
for i = 1, #writes, 4 do
    call_with(ARGV, writes[i + 1], writes[i + 2] - 1, 'HSET', writes[i])
    call_with(ARGV, writes[i + 2], writes[i + 3] - 1, 'HDEL', writes[i])
end
for i = 1, #timers_at do schedule(timers, timers_at[i]) end
for i = 1, #later, 2 do later[i](later[i + 1]) end
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

local remembered = kept(dedup_list, 2, dedup_keys_left_out)
remember(box, remembered, 1, #remembered)

for _, queue in ipairs({input, back}) do
    queue.acks = kept(queue.ids, 1, queue.left_out)
    if crashed == '1' then
        local fields = {}
        for i = 1, #queue.acks do fields[i] = queue.name .. queue.acks[i] end
        call_with(fields, 1, #fields, 'HDEL', crashes)
    end
end

-- 6. The receipt, and the acks last. Redelivery entries have only this reader: they are deleted with their ack.
redis.call('SET', receipt, answer, 'PX', RECEIPT_MS)
call_with(back.acks, 1, #back.acks, 'XDEL', redelivery)
call_with(input.acks, 1, #input.acks, 'XACK', stream, group)
call_with(back.acks, 1, #back.acks, 'XACK', redelivery, group)
redis.call('HINCRBY', stats, 'torn', -1)
return answer
