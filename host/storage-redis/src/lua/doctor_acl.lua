#!lua flags=no-writes
-- Asks whether the user that runs this may run commands, without running them.
--
-- KEYS     none: nothing is read, and each key stands in its command
-- ARGV     more: commands with their arguments, parted by the character 31
-- returns  the numbers of those that are not allowed; of those that the server does not know, beyond the last of all

local denied = {}
for i = MORE_ARGS, #ARGV do
    local words = {}
    for word in string.gmatch(ARGV[i], '[^\31]+') do words[#words + 1] = word end
    local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
    if not known then
        denied[#denied + 1] = i + #ARGV
    elseif not allowed then
        denied[#denied + 1] = i
    end
end
return denied
