#!lua
-- Makes the group of a source on both lanes unless it is there, and opens its books.
--
-- KEYS     1 stream  2 again  3 due  4 dead  5 stats  6 timers
-- ARGV     1 group  2 where it begins: 0 (with what is there), $ (with what comes)
-- returns  1 if the group on the stream was made now, 0 if it was there

local stream, again, due, dead, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, start = ARGV[1], ARGV[2]

local booked = redis.call('XLEN', again) + redis.call('ZCARD', due) + redis.call('XLEN', dead) + redis.call('ZCARD', KEYS[6])
local totals = redis.call('HMGET', stats, 'committed', 'skipped', 'dropped', 'timers')
for i = 1, 3 do booked = booked + (tonumber(totals[i] or '0') or 0) end
-- Timers were never on the stream.
booked = booked - (tonumber(totals[4] or '0') or 0)
may('HSET', stats, 'base', '0')

if not group_info(again, group) then
    redis.call('XGROUP', 'CREATE', again, group, '0', 'MKSTREAM')
end

local added, length = 0, redis.call('XLEN', stream)
if redis.call('EXISTS', stream) == 1 then
    added = named(redis.call('XINFO', 'STREAM', stream))['entries-added']
end
local info = group_info(stream, group)
local waiting = nil
if not info then
    -- Redis can tell how many entries wait for a group only if it knows how many it has passed.
    waiting = start == '0' and length or 0
    redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM', 'ENTRIESREAD', whole(added - waiting))
elseif not redis.call('HGET', stats, 'base') then
    -- Somebody else's group. While Redis cannot say how many entries it has before it, it stays without a base.
    local new = redis.call('XRANGE', stream, '(' .. info['last-delivered-id'], '+', 'COUNT', 1)[1]
    local lag = new and info.lag or (not new and 0)
    waiting = lag and lag + info.pending
end

-- What was added to the stream up to the base is not this group's business. A group that is made anew after its stream
-- was lost has a past all the same: what it has booked is added to what it will find.
if waiting then
    redis.call('HSET', stats, 'base', whole(added - waiting - booked))
end
return info and 0 or 1
