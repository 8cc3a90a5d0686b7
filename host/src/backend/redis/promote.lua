#!lua
-- Moves retries and timers that are due to the lane `again`.
--
-- KEYS     1 again  2 due  3 bodies of what is due  4 timers
-- ARGV     1 how many at most
-- returns  how many were moved, and in how many ms the next one is due (-1: none waits)

local again, bodies, max = KEYS[1], KEYS[3], tonumber(ARGV[1])
local now, moved, next_in = clock(), 0, -1

local function move(waiting)
    local names = redis.call('ZRANGEBYSCORE', waiting, '-inf', whole(now), 'LIMIT', 0, max - moved)
    if #names == 0 then return end
    redis.call('XLEN', again)
    may('XADD', again, '*', 'event', '')
    may('ZREM', waiting, '')
    may('HDEL', bodies, '')
    local records = {}
    for i = 1, #names do
        local body = redis.call('HGET', bodies, names[i])
        if body then records[#records + 1] = cmsgpack.unpack(body) end
    end
    for i = 1, #records do redis.call('XADD', again, '*', unpack(records[i])) end
    call_with(names, 1, #names, 'ZREM', waiting)
    call_with(names, 1, #names, 'HDEL', bodies)
    moved = moved + #names
end

for _, waiting in ipairs({KEYS[2], KEYS[4]}) do
    move(waiting)
    local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    local left = first[2] and math.max(0, first[2] - now)
    if left and (next_in < 0 or left < next_in) then next_in = left end
end
return {moved, next_in}
