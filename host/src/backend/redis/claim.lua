#!lua
-- Takes over deliveries that a dead consumer left pending on one lane, and removes the consumer when nothing is left.
-- That it is dead (no heartbeat) is for the caller to know; the lease is checked here.
--
-- KEYS     1 stream of the lane  2 tries  3 dead  4 stats
-- ARGV     1 group  2 consumer that takes over  3 consumer that is dead  4 lease in ms  5 how many at most
--          6 name of the lane: i(nput), a(gain)  7 dead letters at most
-- returns  the entries, and for each how many hosts have died with it so far

local key, tries, dead, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, me, gone, lease, lane, dead_max = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6], tonumber(ARGV[7])

redis.call('HLEN', tries)
redis.call('XLEN', dead)
redis.call('HLEN', stats)
may('XCLAIM', key, group, me, lease, '0-1')
may('HINCRBY', tries, lane, '1')
may('XADD', dead, '*', 'class', '')

local ids, wanted = {}, {}
local rows = redis.call('XPENDING', key, group, 'IDLE', lease, '-', '+', ARGV[5], gone)
for i = 1, #rows do
    ids[i] = rows[i][1]
    wanted[ids[i]] = true
end

local entries, crashes = {}, {}
if #ids > 0 then
    entries = redis.call('XCLAIM', key, group, me, lease, unpack(ids))
    for i = 1, #entries do
        wanted[entries[i][1]] = nil
        crashes[i] = redis.call('HINCRBY', tries, lane .. entries[i][1], 1)
    end
end

-- XCLAIM drops entries from the pending list that somebody deleted from the stream. Their bytes are gone, but that
-- they were there must not be forgotten: it becomes a dead letter.
for i = 1, #ids do
    if wanted[ids[i]] then
        redis.call('XADD', dead, '*', 'class', 'undecodable',
            'text', 'the entry was deleted from the stream before it was handled; its bytes are lost',
            'fields', '', 'origin', ids[i], 'attempts', '0', 'crashes', '0', 'history', '[]')
        redis.call('HDEL', tries, lane .. ids[i])
    end
end
if next(wanted) and redis.call('XLEN', dead) > dead_max then
    redis.call('HINCRBY', stats, 'dropped', redis.call('XTRIM', dead, 'MAXLEN', '=', dead_max))
end

if #redis.call('XPENDING', key, group, '-', '+', 1, gone) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', key, group, gone)
end
return {entries, crashes}
