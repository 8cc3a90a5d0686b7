-- The outcome of each entry of a settlement, and what it writes if it is settled (the lists of effects.lua). Nothing is
-- written in here, but each outcome knows those before it: two entries may carry one event, or write one state in turn.
-- Stands before settle.lua.

local byte, unpacked = string.byte, struct.unpack -- globals are slower to reach
local SHAPE = '>BI4I4I4I4I4'
local more_at = MORE_ARGS -- where what the next op adds begins among the arguments
local dedup_keys_left_out = {} -- positions of deduplication keys that are not kept

-- `next_dedup_key` answers whether the event of the next deduplication key is known, by an outcome. `keep_dedup_key`
-- remembers that key if its entry is committed.
local function dedup_steps(list, seen)
    local committed_here, at = {}, -1
    local function next_dedup_key(mine)
        at = at + 2
        if not mine then return 'F' end
        local before = seen[(at + 1) / 2] or committed_here[list[at]]
        if not before then return 'C' end
        return before == list[at + 1] and 'U' or 'X'
    end
    local function keep_dedup_key(letter)
        if letter == 'C' then committed_here[list[at]] = list[at + 1] else dedup_keys_left_out[at] = true end
        return letter
    end
    return next_dedup_key, keep_dedup_key
end

-- What a commit with effects depends on: the streams that it emits to, room for its timers, the version of its state.
local function commit_checks()
    -- By its number. A stream that was given the highest of all ids takes no more entries. (XINFO STREAM would report
    -- it, and copy its first and last entry, which may be large.)
    local targets = {}
    local function target(number)
        if targets[number] then return targets[number] end
        local key = KEYS[number]
        may('XADD', key, '*', 'event', '')
        local last = redis.pcall('XRANGE', key, '18446744073709551615-0', '+', 'COUNT', 1)
        if last.err and string.find(last.err, 'WRONGTYPE', 1, true) then
            error({err = 'WRONGTYPE ' .. key .. ', which was to be emitted to, is no stream'})
        end
        -- A user without read access is denied when the first event is added.
        if last[1] then exhausted(key) end
        targets[number] = key
        return key
    end

    -- For so many timers more? What is due already and waits to be fetched counts, too: a handler whose timers set
    -- timers fills that.
    local waiting
    local function room_for(number)
        if not waiting then
            waiting = redis.call('ZCARD', timers) + redis.call('XLEN', redelivery)
            redis.call('HLEN', due_bodies)
            may('ZADD', timers, '0', '')
            may('HSET', due_bodies, '', '')
        end
        return waiting + timers_set + number <= tonumber(timers_max)
    end

    local versions = {}
    local function version(key)
        if next(versions) == nil then
            -- One state key stands for all: what a user may do goes by prefixes.
            may('HSET', key, 'v', '1')
            may('HDEL', key, '=')
            may('ZADD', state_index, '0', '')
            redis.call('ZCARD', state_index)
        end
        versions[key] = versions[key] or redis.call('HGET', key, 'v') or '0'
        return versions[key]
    end

    return target, room_for, version, versions
end

-- The outcome of a commit with effects: does the state have the version that was read, is there room for the timers?
local function commits_with_effects(next_dedup_key, keep_dedup_key)
    local target, room_for, version, versions = commit_checks()
    local shape_at = 1
    -- State keys that an entry was to write and did not: entries behind it read a state that will never exist. The
    -- version alone does not show that, because another consumer may have raised it just as much.
    local broken = {}
    return function(mine)
        local at = more_at
        local has_dedup_key, key, sets, deletes, events, new_timers, streams_at = unpacked(SHAPE, shapes, shape_at)
        key = KEYS[key]
        local sets_at = key and at + 1 or at
        local deletes_at = sets_at + 2 * sets
        local events_at = deletes_at + deletes
        local first_timer = events_at + events
        shape_at, more_at = streams_at + 4 * events, first_timer + RETRY_ARGS * new_timers

        local letter = mine and 'C' or 'F'
        if has_dedup_key == 1 then letter = next_dedup_key(mine) end
        if letter == 'C' and key and (broken[key] or version(key) ~= ARGV[at]) then letter = 'T' end
        if letter == 'C' and new_timers > 0 and not room_for(new_timers) then letter = 'O' end
        if has_dedup_key == 1 then keep_dedup_key(letter) end
        if letter ~= 'C' then
            if sets > 0 then broken[key] = true end
            return letter
        end
        for i = 0, events - 1 do
            emits[#emits + 1] = target(unpacked('>I4', shapes, streams_at + 4 * i))
            emits[#emits + 1] = events_at + i
        end
        if sets > 0 then
            versions[key] = ARGV[sets_at + 1]
            local last = #writes
            writes[last + 1], writes[last + 2], writes[last + 3], writes[last + 4] = key, sets_at, deletes_at, events_at
            if ARGV[at] == '0' then
                new_keys[#new_keys + 1] = 0
                new_keys[#new_keys + 1] = string.sub(key, state_prefix_len + 1)
            end
        end
        timers_set = timers_set + new_timers
        for i = first_timer, more_at - 1, RETRY_ARGS do timers_at[#timers_at + 1] = i end
        return letter
    end
end

-- By op, the function that answers an entry's outcome and notes what it writes.
local function outcomes_by_op(list, seen)
    local next_dedup_key, keep_dedup_key = dedup_steps(list, seen)
    -- An event that no host wants is skipped only if none has begun to want it since that was decided.
    local agreed = string.match(plain, '^0 (%d+)$')
    local outdated = agreed and agreed ~= (redis.call('HGET', stats, 'agreed') or '0')
    local function note(what, argument)
        later[#later + 1], later[#later + 2] = what, argument
    end

    local function retry(at)
        schedule(due, at)
    end

    local function write_dead_letter(at)
        letters.add({unpack(ARGV, at, at + DEAD_ARGS - 1)})
    end

    local function leave(what)
        local key, id = unpack(what)
        if not set_aside(key, group, ELSEWHERE, id) then letters.add_without_body(id) end
    end

    local function quarantine(what)
        local key, id, name = unpack(what)
        if not set_aside(key, group, QUARANTINE, id) then letters.add_without_body(id) end
        local times, at, alone = read_crashes(redis.call('HGET', crashes, name .. id))
        if alone then redis.call('HSET', crashes, name .. id, write_crashes(times, at, false)) end
    end

    return {
        [byte('c')] = function(mine) return keep_dedup_key(next_dedup_key(mine)) end,
        [byte('e')] = commits_with_effects(next_dedup_key, keep_dedup_key),
        [byte('s')] = function(mine) return mine and 'S' or 'F' end,
        [byte('n')] = function(mine) return mine and (outdated and 'W' or 'S') or 'F' end,
        [byte('u')] = function(mine) return mine and 'U' or 'F' end,
        [byte('l')] = function(mine, queue, id)
            if mine then note(leave, {queue.key, id}) end
            return mine and 'L' or 'F'
        end,
        [byte('q')] = function(mine, queue, id)
            if mine then note(quarantine, {queue.key, id, queue.name}) end
            return mine and 'Q' or 'F'
        end,
        [byte('r')] = function(mine)
            local at = more_at
            more_at = at + RETRY_ARGS
            if mine then note(retry, at) end
            return mine and 'R' or 'F'
        end,
        [byte('d')] = function(mine)
            local at = more_at
            more_at = at + DEAD_ARGS
            if mine then note(write_dead_letter, at) end
            return mine and 'D' or 'F'
        end,
    }
end

-- The outcomes of all entries, in the order of their ops.
local function outcomes_of(input, back, list, seen)
    local outcome, answer = outcomes_by_op(list, seen), {}
    local ACKED = {C = true, S = true, R = true, D = true, U = true}
    for i = 1, #ops do
        local op, queue = byte(ops, i), input
        if op < 97 then op, queue = op + 32, back end -- a capital letter
        local at = queue.at + 1
        local id = queue.ids[at]
        queue.at = at
        local letter = outcome[op](queue.all_mine or queue.mine[id], queue, id)
        if not ACKED[letter] then queue.left_out[at] = true end
        if not queue.all_mine and (ACKED[letter] or letter == 'Q' or letter == 'L') then
            queue.mine[id] = nil -- the same entry once more in this batch is settled already
        end
        count[letter] = count[letter] + 1
        answer[i] = letter
    end
    return table.concat(answer)
end

