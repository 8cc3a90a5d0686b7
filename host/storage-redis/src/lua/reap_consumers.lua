#!lua flags=allow-oom
-- Removes consumers that idle_consumers.lua has listed and that have no heartbeat, from each queue where they still
-- have nothing pending. takeover.lua reclaims what dead consumers have pending.
--
-- KEYS     stream  redelivery
-- ARGV     group  more: consumers
-- returns  how many were removed, on each queue counted

local gone = 0
for _, queue in ipairs({stream, redelivery}) do
    for i = MORE_ARGS, #ARGV do
        if #redis.call('XPENDING', queue, group, '-', '+', 1, ARGV[i]) == 0 then
            redis.call('XGROUP', 'DELCONSUMER', queue, group, ARGV[i])
            gone = gone + 1
        end
    end
end
return gone
