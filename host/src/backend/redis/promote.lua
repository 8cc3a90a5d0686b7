#!lua
-- Moves retries that are due to the lane `again`.
--
-- KEYS     1 again  2 due  3 due bodies
-- ARGV     1 how many at most
-- returns  how many were moved, and in how many ms the next one is due (-1: none waits)

local again, due, due_bodies = KEYS[1], KEYS[2], KEYS[3]
local now = clock()

local names = redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, ARGV[1])
if #names > 0 then
    redis.call('XLEN', again)
    may('XADD', again, '*', 'event', '')
    may('ZREM', due, '')
    may('HDEL', due_bodies, '')
    local records = {}
    for i = 1, #names do
        local body = redis.call('HGET', due_bodies, names[i])
        if body then records[#records + 1] = cmsgpack.unpack(body) end
    end
    for i = 1, #records do redis.call('XADD', again, '*', unpack(records[i])) end
    call_with(names, 1, #names, 'ZREM', due)
    call_with(names, 1, #names, 'HDEL', due_bodies)
end

local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
return {#names, first[2] and math.max(0, first[2] - now) or -1}
