#!lua flags=allow-oom
-- Reclaims deliveries pending on one queue under another consumer: a dead one, or the placeholder of released or
-- quarantined ones. The consumer is removed when it has nothing pending any more.
-- The caller checks that it is dead (no heartbeat); the lease is checked here.
--
-- KEYS     1 stream of the queue  2 tries  3 dead  4 stats
-- ARGV     1 group  2 consumer that reclaims  3 consumer that loses them  4 lease in ms  5 how many at most
--          6 name of the queue: i (stream), a (redelivery)  7 dead letters at most, and their bytes
--          8 what is noted: c(rash), r (nothing: they were released), s (suspect: it will be run alone)
--          9 for so many ms a crash counts  10 with so many crashes an entry goes into quarantine
--          11 an entry with two or more crashes counts for so many
-- returns  the ids of the reclaimed entries, not read yet: their bytes may be what crashes hosts; for each its crashes
--          so far; whether it was run alone at the last one (0, 1); the ids of those that went into quarantine

local key, tries = KEYS[1], KEYS[2]
local group, me, gone, lease, queue = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local note, crash_window, crashes_max, weight = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local room = tonumber(ARGV[5])

redis.call('HLEN', tries)
local letters = letters_of(KEYS[3], KEYS[4], ARGV[7])
may('XCLAIM', key, group, me, lease, '0-1')
may('HSET', tries, queue, '1')

local now = clock()
-- How many hosts crashed while processing an entry, this one counted; when the last one did; and if that one ran it
-- alone.
local function account(id)
    local crashes, at, alone = read_tries(redis.call('HGET', tries, queue .. id))
    if note ~= 'c' then return crashes, at, alone end
    -- Crashes of long ago are no evidence any more.
    return (now - at > crash_window and 0 or crashes) + 1, now, alone
end

local ids, crashes, alone, quarantined = {}, {}, {}, {}
local rows = redis.call('XPENDING', key, group, 'IDLE', lease, '-', '+', room, gone)
for i = 1, #rows do
    local id = rows[i][1]
    local count, at, ran_alone = account(id)
    local suspect = note == 'c' and count >= crashes_max and not ran_alone
    -- Entries with several crashes come a few at a time: one more crash narrows them down.
    local takes = suspect and 0 or note == 'c' and count > 1 and weight or 1
    if takes > room and #ids > 0 then break end
    room = room - takes
    -- XCLAIM drops entries from the pending list that were deleted from the stream.
    if #redis.call('XCLAIM', key, group, suspect and QUARANTINE or me, lease, id, 'JUSTID') == 0 then
        letters.add_without_body(id)
        redis.call('HDEL', tries, queue .. id)
    else
        if note ~= 'r' or ran_alone then
            redis.call('HSET', tries, queue .. id, write_tries(count, at, note == 's'))
        end
        if suspect then
            quarantined[#quarantined + 1] = id
        else
            local at_end = #ids + 1
            ids[at_end], crashes[at_end], alone[at_end] = id, count, note == 'c' and ran_alone and 1 or 0
        end
    end
end
letters.close()

if #redis.call('XPENDING', key, group, '-', '+', 1, gone) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', key, group, gone)
end
return {ids, crashes, alone, quarantined}
