#!lua flags=no-writes
-- Lists consumers of both queues that have been idle for the lease with nothing pending.
--
-- KEYS     stream  redelivery
-- ARGV     group  lease_ms  max (how many, on each queue)
-- returns  their names

local found, names = {}, {}
for _, queue in ipairs({stream, redelivery}) do
    local number = 0
    for _, list in ipairs(redis.call('XINFO', 'CONSUMERS', queue, group)) do
        local info = named(list)
        -- Names in parentheses are placeholders.
        if info.pending == 0 and info.idle >= tonumber(lease_ms) and not string.find(info.name, '^%(') then
            if not found[info.name] then names[#names + 1] = info.name end
            found[info.name], number = true, number + 1
            if number == tonumber(max) then break end
        end
    end
end
return names
