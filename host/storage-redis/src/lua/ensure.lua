#!lua
-- Creates the group of a subscription on both queues unless it exists, and its counters. A lost one resumes at the
-- position that tend.lua noted; if that is not known well enough, it is not created, and an operator has to choose a
-- position.
--
-- KEYS     stream  redelivery  due  dead  stats  timers  position  inbox (base of its buckets)  audit_log
-- ARGV     operator  reason  records_max (in the audit log)  ids_max (in one record)  group
--          start (where a new one begins: 0, with what is there; $, with what comes)  window_ms (of the inbox)
--          remembered (the last id handed out that the caller remembers; '': none)
--          place (where a lost one is to begin, as the operator chose: 0, $, an id; '': where it was)
-- returns  0 it exists, 1 it is new, 2 it resumes where it was, or where the operator chose, 3 it is lost

local counted = redis.call('XLEN', redelivery) + redis.call('ZCARD', due) + redis.call('XLEN', dead) + redis.call('ZCARD', timers)
local totals = redis.call('HMGET', stats, 'committed', 'skipped', 'dropped', 'timers')
for i = 1, 3 do counted = counted + (tonumber(totals[i] or '0') or 0) end
-- Timers were never on the stream.
counted = counted - (tonumber(totals[4] or '0') or 0)
local note = named(redis.call('HGETALL', position))
may('HSET', stats, 'base', '0')
may('HSET', position, 'lost', '0')
may('HDEL', position, 'lost')
if place ~= '' then may_audit(audit_log) end

local info = group_info(stream, group)
if place ~= '' and info then return 0 end
if not group_info(redelivery, group) then
    redis.call('XGROUP', 'CREATE', redelivery, group, '0', 'MKSTREAM')
end

local length, added, last, first = redis.call('XLEN', stream), 0, '0-0', nil
if redis.call('EXISTS', stream) == 1 then
    local facts = named(redis.call('XINFO', 'STREAM', stream))
    added, last, first = facts['entries-added'], facts['last-generated-id'], facts['first-entry'] and facts['first-entry'][1]
end
local base = redis.call('HGET', stats, 'base')

if info then
    if note.lost then redis.call('HDEL', position, 'lost') end
    if not base then
        -- Another program created the group. While Redis cannot report its lag, it stays without a base.
        local new = redis.call('XRANGE', stream, '(' .. info['last-delivered-id'], '+', 'COUNT', 1)[1]
        local lag = new and info.lag or (not new and 0)
        if lag then redis.call('HSET', stats, 'base', whole(added - lag - info.pending - counted)) end
    end
    return 0
end

-- The group is missing. Did it ever exist?
-- The note may be older than what has been handed out since: the later one tells whether this is still that stream.
local known = note.last
if remembered ~= '' and (not known or before(known, remembered)) then known = remembered end
local worked = known or base or counted > 0

-- The stream is the one of the note: not recreated under its name, nor restored from an older copy.
local function is_same()
    -- Delivered entries are gone, though nothing was ever removed.
    if first and known and known ~= '0-0' and before(known, first) and length == added then return false end
    return note.last and added >= (tonumber(note.added) or 0) and not before(last, note.last)
end

-- Nothing was settled since the note; or else the inbox knows all that was.
local function is_exact()
    return note.cut == '0' and note.sum == sum_of(stats, dead)
end
local function is_remembered()
    local since = note.cut == '1' and string.match(note.delivered, '^%d+') or note.at
    return clock() - since < tonumber(window_ms) and redis.call('EXISTS', inbox) == 1
end

local at, kind, read = start, 1, nil
if place ~= '' then
    at, kind = place, 2
elseif not worked then
    at = start
elseif not first or (known and before(known, first) and not is_same()) then
    -- Nothing on the stream was ever delivered to it: the stream is another one.
    at = '0'
elseif is_same() and (is_exact() or is_remembered()) then
    at, kind, read = note.delivered, 2, note.read
else
    if not note.lost then redis.call('HSET', position, 'lost', whole(clock())) end
    return 3
end

-- Redis can report a group's lag only if it knows how many entries the group has read.
local waiting = at == '0' and length or (at == '$' and 0) or nil
if waiting then read = whole(added - waiting) end
if read and read ~= '' then
    redis.call('XGROUP', 'CREATE', stream, group, at, 'MKSTREAM', 'ENTRIESREAD', read)
else
    redis.call('XGROUP', 'CREATE', stream, group, at, 'MKSTREAM')
end
local pending = {}
for id in string.gmatch(kind == 2 and place == '' and note.pending or '', '[^ ]+') do pending[#pending + 1] = id end
if #pending > 0 then
    pending[#pending + 1], pending[#pending + 2] = 'FORCE', 'JUSTID'
    redis.call('XCLAIM', stream, group, RELEASED, 0, unpack(pending))
end

-- Entries added to the stream up to the base do not count for this group. A group recreated after its stream was lost
-- has a past all the same: what it has counted is added to what it will find.
if waiting and not (base and is_same()) then
    redis.call('HSET', stats, 'base', whole(added - waiting - counted))
end
redis.call('HDEL', position, 'lost')
if kind == 2 and place == '' then
    redis.call('HSET', position, 'last', at)
else
    redis.call('HDEL', position, 'last', 'delivered', 'pending', 'at')
end
if place ~= '' then audit(audit_log, 'resume', {}, operator, reason, records_max, ids_max) end
return kind
