#!lua flags=allow-oom
-- Takes over deliveries that another consumer has pending on one lane: one that is dead, or one that stands for what was
-- released or lies in quarantine. A real consumer is removed when nothing of it is left.
-- That it is dead (no heartbeat) is for the caller to know; the lease is checked here.
--
-- KEYS     1 stream of the lane  2 tries  3 dead  4 stats
-- ARGV     1 group  2 consumer that takes over  3 consumer that loses them  4 lease in ms  5 how many at most
--          6 name of the lane: i(nput), a(gain)  7 dead letters at most, and their bytes
--          8 what is noted: c(rash), r (nothing: they were released), s (suspect: it will be run alone)
--          9 for so many ms a crash counts
-- returns  the entries; for each how many hosts have died with it so far; and whether the last one ran it alone (0, 1)

local key, tries = KEYS[1], KEYS[2]
local group, me, gone, lease, lane = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local note, crash_window = ARGV[8], tonumber(ARGV[9])

redis.call('HLEN', tries)
local letters = letters_of(KEYS[3], KEYS[4], ARGV[7])
may('XCLAIM', key, group, me, lease, '0-1')
may('HSET', tries, lane, '1')

local ids, wanted = {}, {}
local rows = redis.call('XPENDING', key, group, 'IDLE', lease, '-', '+', ARGV[5], gone)
for i = 1, #rows do
    ids[i] = rows[i][1]
    wanted[ids[i]] = true
end

local now = clock()
-- Counts what is to be noted of an entry; answers how many hosts have died with it, and if the last one ran it alone.
local function noted(id)
    local crashes, at, alone = read_tries(redis.call('HGET', tries, lane .. id))
    if note == 'c' then
        -- Deaths of long ago are no evidence any more.
        crashes = (now - at > crash_window and 0 or crashes) + 1
        at = now
    end
    if note ~= 'r' or alone then
        redis.call('HSET', tries, lane .. id, write_tries(crashes, at, note == 's'))
    end
    return crashes, note == 'c' and alone and 1 or 0
end

local entries, crashes, alone = {}, {}, {}
if #ids > 0 then
    entries = redis.call('XCLAIM', key, group, me, lease, unpack(ids))
    for i = 1, #entries do
        wanted[entries[i][1]] = nil
        crashes[i], alone[i] = noted(entries[i][1])
    end
end

-- XCLAIM drops entries from the pending list that somebody deleted from the stream.
for i = 1, #ids do
    if wanted[ids[i]] then
        letters.add_without_body(ids[i])
        redis.call('HDEL', tries, lane .. ids[i])
    end
end
letters.close()

if #redis.call('XPENDING', key, group, '-', '+', 1, gone) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', key, group, gone)
end
return {entries, crashes, alone}
