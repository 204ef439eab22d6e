-- Compare-and-set on version, for many entries at once.
-- KEYS[2i-1] is an entry, KEYS[2i] the mark beside it; ARGV[3i-2] the entry's value (the first 20 characters are the version, zero-padded, so that text
-- order is number order), ARGV[3i-1] its time to live in milliseconds, and ARGV[3i] what may happen where there is
-- no entry: '1' create it if nothing was ever evicted, '0' leave it so, anything else create it only while the mark
-- holds this text. In a cluster all keys of a call are in one slot.
--
-- An entry of the same version is replaced if it is incomplete and the new one is not: see `INCOMPLETE` in entry.rs.
--
-- Once this server has evicted a key, '1' is as good as '0': a newer version may have been there, and have been answered.
--
-- The mark is set by a reader that found nothing, before it asks the database. Every write that is not such a
-- reader's own takes the mark away, so what the reader then brings, and may be old by now, is not stored.
-- Answers 1 for each entry that was written and 0 for each that was not.
local written = {}

local evicts
local function has_evicted()
    if evicts == nil then
        local info = redis.pcall('INFO', 'stats')
        evicts = type(info) ~= 'string' or not string.find(info, 'evicted_keys:0\r', 1, true)
    end
    return evicts
end

for i = 1, #KEYS / 2 do
    local key, mark = KEYS[2 * i - 1], KEYS[2 * i]
    local value, ttl, create = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
    local held = redis.pcall('GETRANGE', key, 0, 19)
    if type(held) == 'table' or held ~= '' and not (#held == 20 and string.find(held, '^0%d+$')) then
        -- Not a string, or one without a version: nothing of ours, and in the way.
        redis.call('DEL', key)
        held = ''
    end
    local newer
    if held ~= '' then
        local version = string.sub(value, 1, 20)
        newer = held < version
            or held == version and redis.call('GETRANGE', key, -2, -1) == ']}' and string.sub(value, -2) ~= ']}'
    elseif create == '1' or create == '0' then
        newer = create == '1' and not has_evicted()
    else
        newer = redis.call('GET', mark) == create
    end
    if create == '1' or create == '0' then
        redis.call('DEL', mark)
    end
    if newer then
        local set = redis.pcall('SET', key, value, 'PX', ttl)
        if set.err then
            if not string.find(set.err, '^OOM') then
                return set
            end
            -- There is no room, so the older version goes at least.
            redis.call('DEL', key)
            written[i] = 0
        else
            written[i] = 1
        end
    else
        written[i] = 0
    end
end
return written
