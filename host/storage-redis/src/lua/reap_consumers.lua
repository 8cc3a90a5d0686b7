#!lua flags=allow-oom
-- Removes consumers that are dead (no heartbeat, idle for the lease) and have nothing pending, queue by queue.
-- takeover.lua reclaims what dead consumers have pending.
--
-- KEYS     1 stream  2 redelivery
-- ARGV     1 group  2 lease in ms  3 how many at most, on each queue  4 what the names of heartbeats begin with
--          5 the longest that a heartbeat may last, in ms
-- returns  how many were removed from the queue that lost more

local group, lease, max, heartbeat = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local heartbeat_max = tonumber(ARGV[5])

-- Names in parentheses are placeholders.
local function is_a_host(name)
    return not string.find(name, '^%(')
end

local function reap(key)
    local gone = 0
    for _, list in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
        local info = named(list)
        local idle = info.pending == 0 and info.idle >= lease and is_a_host(info.name)
        if idle and not lives(heartbeat .. info.name, heartbeat_max) then
            redis.call('XGROUP', 'DELCONSUMER', key, group, info.name)
            gone = gone + 1
            if gone == max then break end
        end
    end
    return gone
end

return math.max(reap(KEYS[1]), reap(KEYS[2]))
