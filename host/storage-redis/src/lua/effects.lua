-- What a settlement writes: outcomes.lua notes it, settle.lua has it written when all outcomes are known.

-- How many arguments a retry or a timer has, and a dead letter.
local RETRY_ARGS, DEAD_ARGS = 14, 16
local now = clock()

-- What the commits write is noted in lists: a table for each commit would take longer.
local emits = {} -- stream, position of the event
local writes = {} -- state key, position of the first field and value to set, of the first to delete, end of those
local new_keys = {} -- 0, name of a state key that is new
local timers_at = {} -- position of a timer
local later = {} -- for the other ops: function, argument
local timers_set = 0
-- How many entries have each outcome.
local count = {C = 0, S = 0, R = 0, D = 0, U = 0, Q = 0, X = 0, T = 0, F = 0, O = 0, L = 0, W = 0}
local letters -- where an entry may become a dead letter (letters.lua)

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

local function bump(counter, by)
    if by ~= 0 then redis.call('HINCRBY', stats, counter, by) end
end

local function count_all(sign)
    bump('committed', sign * count.C)
    bump('skipped', sign * (count.S + count.U))
    bump('duplicates', sign * count.U)
    bump('retried', sign * count.R)
    bump('timers', sign * timers_set)
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
    if known > tonumber(versions_max) then
        redis.call('HINCRBY', stats, 'by:', redis.call('HGET', stats, 'by:' .. oldest) or 0)
        redis.call('HDEL', stats, 'by:' .. oldest, 'at:' .. oldest)
    end
end

local function exhausted(key)
    error({err = 'EXHAUSTED the stream ' .. key .. ' takes no more entries: its last id is the highest of all'})
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

