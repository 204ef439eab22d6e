-- Exchanges a refresh token for its successor, exactly once.
-- KEYS[1] is the session: `current` holds the id of the one token that can be exchanged, and `spent:ID` tells of a
-- token exchanged lately when that was and what it was exchanged for.
-- ARGV: the presented token's id, the successor's id, the new access token's id, the second both are signed at,
-- now in milliseconds, the grace in milliseconds, the session's time to live in milliseconds.
-- Answers {} for a session that is over, and {successor, access, second} otherwise.
local presented, now, grace = ARGV[1], tonumber(ARGV[5]), tonumber(ARGV[6])
local session = redis.call('HGETALL', KEYS[1])
local current, spent
for i = 1, #session, 2 do
    local name, value = session[i], session[i + 1]
    if name == 'current' then
        current = value
    else
        local at = tonumber(string.match(value, '^%d+'))
        if math.abs(now - at) > grace then
            redis.call('HDEL', KEYS[1], name)
        elseif name == 'spent:' .. presented then
            spent = value
        end
    end
end
if presented == current then
    local made = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]
    redis.call('HSET', KEYS[1], 'current', ARGV[2], 'spent:' .. presented, ARGV[5] .. ' ' .. made)
    redis.call('PEXPIRE', KEYS[1], ARGV[7])
    return { ARGV[2], ARGV[3], ARGV[4] }
end
if spent then
    -- Two tabs that refresh at once are not theft: both get the same successor.
    local successor, access, second = string.match(spent, '^%d+ (%S+) (%S+) (%S+)$')
    return { successor, access, second }
end
-- A token used a second time: whoever holds it or its successor, one of them stole it.
redis.call('DEL', KEYS[1])
return {}
