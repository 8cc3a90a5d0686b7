#!lua
-- Moves retries and timers that are due to the redelivery queue: no more bytes at once than a script may hold, but at
-- least one. What is left is due at once.
--
-- Due is what is due by the steady clock (common.lua). Steps of the server's clock are detected here: the caller passes
-- the last time it was given, and how much time has passed since by its own monotonic clock.
--
-- KEYS     redelivery  due  due_bodies  timers  stats
-- ARGV     max (how many)  told_ms (the last time the caller was given; '': it is new)  passed_ms (since then)
-- returns  moved (how many)  next_in_ms (when the next one is due; -1: none waits)  now_ms (the time)

local PROMOTE_BYTES_MAX = 16777216

local max = tonumber(max)
local moved, bytes, next_in = 0, 0, -1

local now = clock()
local time, off, latest, before = steady(stats, now)
if redis.call('ZCARD', due) + redis.call('ZCARD', timers) == 0 then
    return {'moved', 0, 'next_in_ms', -1, 'now_ms', whole(time)}
end

local told = tonumber(told_ms)
local wanted = told and math.max(told + passed_ms, latest)
if wanted and math.abs(time - wanted) > STEP_MS then time, off = wanted, now - wanted end
-- Once a second is enough: no more is lost by a step back that no host observes.
if time - latest >= 1000 or off ~= before then
    may('HSET', stats, '', '')
    keep_steady(stats, time, off)
end

-- What is no record (names and values in turn) was not written here.
local function record_of(body)
    local is_packed, record = pcall(cmsgpack.unpack, body)
    if not is_packed or type(record) ~= 'table' or #record == 0 or #record % 2 == 1 then return nil end
    for i = 1, #record do
        if type(record[i]) ~= 'string' then return nil end
    end
    return record
end

local function move(waiting)
    local names = redis.call('ZRANGEBYSCORE', waiting, '-inf', whole(time), 'LIMIT', 0, max - moved)
    if #names == 0 then return end
    redis.call('XLEN', redelivery)
    may('XADD', redelivery, '*', 'event', '')
    may('ZREM', waiting, '')
    may('HDEL', due_bodies, '')
    local records, count = {}, 0
    for i = 1, #names do
        local body = redis.call('HGET', due_bodies, names[i])
        bytes = bytes + (body and #body or 0)
        if bytes > PROMOTE_BYTES_MAX and moved + count > 0 then break end
        local record = record_of(body or '')
        if record then records[#records + 1] = record end
        count = i
    end
    for i = 1, #records do redis.call('XADD', redelivery, '*', unpack(records[i])) end
    call_with(names, 1, count, 'ZREM', waiting)
    call_with(names, 1, count, 'HDEL', due_bodies)
    moved = moved + count
end

for _, waiting in ipairs({due, timers}) do
    move(waiting)
    local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    local left = first[2] and math.max(0, first[2] - time)
    if left and (next_in < 0 or left < next_in) then next_in = left end
end
return {'moved', moved, 'next_in_ms', next_in, 'now_ms', whole(time)}
