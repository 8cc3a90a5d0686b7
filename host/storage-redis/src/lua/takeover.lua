#!lua flags=allow-oom
-- Reclaims deliveries pending on one queue under another consumer: a dead one, or the placeholder of released or
-- quarantined ones. The consumer is removed when it has nothing pending any more.
-- The caller checks that it is dead (no heartbeat); the lease is checked here.
--
-- KEYS     queue (its stream)  crashes (of hosts, with an entry in flight)  dead  stats
-- ARGV     group  consumer (that reclaims)  holder (that loses them)  lease_ms  max (how many)
--          queue_name: i (stream), a (redelivery)  letter_bounds (dead letters at most, and their bytes)
--          note (of what happened): c(rash), r (nothing: they were released), s (suspect: it will be run alone)
--          crash_window_ms (for how long a crash counts)  crashes_max (then an entry goes into quarantine)
--          crashed_weight (an entry with two or more crashes counts for so many)
-- returns  ids (of the reclaimed entries, not read yet: their bytes may be what crashes hosts)
--          crashes (of each so far)  alone (1 for each that was run alone at the last crash, else 0)
--          quarantined (ids of those that went into quarantine)

redis.call('HLEN', crashes)
local letters = letters_of(dead, stats, letter_bounds)
may('XCLAIM', queue, group, consumer, lease_ms, '0-1')
may('HSET', crashes, queue_name, '1')

local now = clock()
-- How many hosts crashed while processing an entry, this one counted; when the last one did; and if that one ran it
-- alone.
local function account(id)
    local times, at, alone = read_crashes(redis.call('HGET', crashes, queue_name .. id))
    if note ~= 'c' then return times, at, alone end
    -- Crashes of long ago are no evidence any more.
    return (now - at > tonumber(crash_window_ms) and 0 or times) + 1, now, alone
end

local room = tonumber(max)
local ids, times, alone, quarantined = {}, {}, {}, {}
local rows = redis.call('XPENDING', queue, group, 'IDLE', lease_ms, '-', '+', room, holder)
for i = 1, #rows do
    local id = rows[i][1]
    local count, at, ran_alone = account(id)
    local suspect = note == 'c' and count >= tonumber(crashes_max) and not ran_alone
    -- Entries with several crashes come a few at a time: one more crash narrows them down.
    local takes = suspect and 0 or note == 'c' and count > 1 and tonumber(crashed_weight) or 1
    if takes > room and #ids > 0 then break end
    room = room - takes
    -- XCLAIM drops entries from the pending list that were deleted from the stream.
    if #redis.call('XCLAIM', queue, group, suspect and QUARANTINE or consumer, lease_ms, id, 'JUSTID') == 0 then
        letters.add_without_body(id)
        redis.call('HDEL', crashes, queue_name .. id)
    else
        if note ~= 'r' or ran_alone then
            redis.call('HSET', crashes, queue_name .. id, write_crashes(count, at, note == 's'))
        end
        if suspect then
            quarantined[#quarantined + 1] = id
        else
            local at_end = #ids + 1
            ids[at_end], times[at_end], alone[at_end] = id, count, note == 'c' and ran_alone and 1 or 0
        end
    end
end
letters.close()

if #redis.call('XPENDING', queue, group, '-', '+', 1, holder) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', queue, group, holder)
end
return {'ids', ids, 'crashes', times, 'alone', alone, 'quarantined', quarantined}
