-- Compare-and-set on version, for many entries at once.
-- KEYS[i] is an entry; ARGV[3i-2] its value (the first 20 characters are the version, zero-padded, so that text
-- order is number order), ARGV[3i-1] its time to live in milliseconds, ARGV[3i] '1' where it may be created.
-- Answers 1 for each entry that was written and 0 for each that was not.
local written = {}
for i, key in ipairs(KEYS) do
    local value, ttl, create = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
    local held = redis.pcall('GETRANGE', key, 0, 19)
    if type(held) == 'table' then
        -- Not a string: nothing of ours, and in the way.
        redis.call('DEL', key)
        held = ''
    end
    local newer
    if held == '' then
        newer = create == '1'
    else
        newer = held < string.sub(value, 1, 20)
    end
    if newer then
        redis.call('SET', key, value, 'PX', ttl)
        written[i] = 1
    else
        written[i] = 0
    end
end
return written
