#!lua flags=no-writes
-- Inspects a stream, its groups and their consumers for `doctor`. No entry is read but the first and the last.
--
-- KEYS     stream
-- ARGV     consumers_max (listed by name, in each group)
-- returns  type (of the key)  length  last (id that it gave)  first (id of its first entry; '': none)  now_ms
--          groups: of each by name: name, delivered (last id), pending, first_pending (id; '': none), held_ms (idle
--          time of that), consumers, idle (names of those with nothing pending), holding (names of the others).
--          Whether they have a heartbeat is for the caller to ask: those are in another slot.

local type = redis.call('TYPE', stream).ok
if type ~= 'stream' then
    return {'type', type, 'length', 0, 'last', '0-0', 'first', '', 'now_ms', whole(clock()), 'groups', {}}
end

local function consumers(group)
    local list = redis.call('XINFO', 'CONSUMERS', stream, group)
    local idle, holding = {}, {}
    for i = 1, math.min(#list, tonumber(consumers_max)) do
        local info = named(list[i])
        -- Names in parentheses are placeholders.
        if not string.find(info.name, '^%(') then
            local names = info.pending > 0 and holding or idle
            names[#names + 1] = info.name
        end
    end
    return #list, idle, holding
end

local info = named(redis.call('XINFO', 'STREAM', stream))
local first = info['first-entry'] and info['first-entry'][1] or ''
local groups = {}
for _, list in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = named(list)
    local oldest = redis.call('XPENDING', stream, group.name, '-', '+', 1)[1]
    local count, idle, holding = consumers(group.name)
    groups[#groups + 1] = {
        'name', group.name, 'delivered', group['last-delivered-id'], 'pending', group.pending,
        'first_pending', oldest and oldest[1] or '', 'held_ms', oldest and oldest[3] or 0,
        'consumers', count, 'idle', idle, 'holding', holding,
    }
end
return {
    'type', type, 'length', info.length, 'last', info['last-generated-id'], 'first', first, 'now_ms', whole(clock()),
    'groups', groups,
}
