#!lua flags=no-writes
-- Inspects a stream, its groups and their consumers for `doctor`. No entry is read but the first and the last.
--
-- KEYS     1 stream
-- ARGV     1 what the names of heartbeats begin with  2 consumers inspected in each group
-- returns  1 type of the key  2 length  3 last id that it gave  4 id of its first entry ('': none)  5 now in ms
--          6.. for each group: name, last id delivered, entries pending, id of the first of them ('': none), its idle
--          time in ms, consumers, those of them without a heartbeat, and those of these with something pending

local stream, heartbeat, max = KEYS[1], ARGV[1], tonumber(ARGV[2])
local type = redis.call('TYPE', stream).ok
if type ~= 'stream' then return {type, 0, '0-0', '', clock()} end

local function consumers(group)
    local list = redis.call('XINFO', 'CONSUMERS', stream, group)
    local silent, holding = 0, 0
    for i = 1, math.min(#list, max) do
        local info = named(list[i])
        -- Names in parentheses are placeholders.
        if not string.find(info.name, '^%(') and redis.call('EXISTS', heartbeat .. info.name) == 0 then
            silent = silent + 1
            if info.pending > 0 then holding = holding + 1 end
        end
    end
    return #list, silent, holding
end

local info = named(redis.call('XINFO', 'STREAM', stream))
local first = info['first-entry'] and info['first-entry'][1] or ''
local answer = {type, info.length, info['last-generated-id'], first, clock()}
for _, list in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = named(list)
    local oldest = redis.call('XPENDING', stream, group.name, '-', '+', 1)[1]
    local count, silent, holding = consumers(group.name)
    answer[#answer + 1] = {
        group.name, group['last-delivered-id'], group.pending, oldest and oldest[1] or '', oldest and oldest[3] or 0,
        count, silent, holding,
    }
end
return answer
