-- Creates entries of first versions.
-- ARGV[1] is '1' if entries may be created; KEYS[i] is an entry, ARGV[2i] its value, ARGV[2i+1] its time to live in
-- milliseconds. In a cluster all keys of a call are in one slot.
-- Answers 1 for each entry that was created and 0 for each that was not, also if there is no room for it.
--
-- Creates nothing once this server has evicted a key: a newer version may have been there, and have been answered.
-- From then on only readers bring entries, whose mark shows whether somebody has written meanwhile.
local created = {}
local evicts = ARGV[1] ~= '1'
if not evicts then
    local info = redis.pcall('INFO', 'stats')
    evicts = type(info) ~= 'string' or not string.find(info, 'evicted_keys:0\r', 1, true)
end
for i, key in ipairs(KEYS) do
    local set = not evicts and redis.pcall('SET', key, ARGV[2 * i], 'NX', 'PX', ARGV[2 * i + 1])
    if set and set.err and not string.find(set.err, '^OOM') then
        return set
    end
    created[i] = (set and not set.err) and 1 or 0
end
return created
