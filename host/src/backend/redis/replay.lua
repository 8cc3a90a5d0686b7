#!lua
-- Puts dead letters back on the lane `again`, with no attempts and no crashes on their account.
--
-- KEYS     1 dead  2 again
-- ARGV     ids of dead letters
-- returns  how many there were

local dead, again = KEYS[1], KEYS[2]
redis.call('XLEN', again)
may('XADD', again, '*', 'event', '')
may('XDEL', dead, '0-1')

local replayed = 0
for i = 1, #ARGV do
    local found = redis.call('XRANGE', dead, ARGV[i], ARGV[i])[1]
    if found then
        local fields, record = found[2], {}
        for f = 1, #fields, 2 do
            local name, value = fields[f], fields[f + 1]
            if name == 'attempts' or name == 'crashes' then value = '0' end
            if name ~= 'class' and name ~= 'text' then
                record[#record + 1] = name
                record[#record + 1] = value
            end
        end
        redis.call('XADD', again, '*', unpack(record))
        redis.call('XDEL', dead, ARGV[i])
        replayed = replayed + 1
    end
end
return replayed
