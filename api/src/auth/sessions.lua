-- Exchanges a refresh token for its successor, exactly once.
-- KEYS[1] is the session: `current` holds the id of the one token that can be exchanged, and `spent:ID` holds when the token ID
-- was exchanged, and for what.
-- ARGV: the presented token's id, the successor's id, the new access token's id, the second both are signed at,
-- now in milliseconds, the grace in milliseconds, the session's time to live in milliseconds, the most spent tokens to
-- remember, the second the presented token was signed at.
-- Returns {} for a session that is over, {'forgotten'} for a token that was exchanged within the grace but followed by too
-- many others to be remembered, and {successor, access, second} otherwise.
local presented, now, grace, most = ARGV[1], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local current, spent = unpack(redis.call('HMGET', KEYS[1], 'current', 'spent:' .. presented))
if not current then
    return {}
end
if presented == current then
    -- Tokens are added only here, so old ones are removed only here.
    local remembered = {}
    local session = redis.call('HGETALL', KEYS[1])
    for i = 1, #session, 2 do
        local name = session[i]
        if name ~= 'current' then
            if math.abs(now - tonumber(string.match(session[i + 1], '^%d+'))) > grace then
                redis.call('HDEL', KEYS[1], name)
            else
                table.insert(remembered, name)
            end
        end
    end
    -- Ids ascend with the time they were made at.
    table.sort(remembered)
    for i = 1, #remembered - most + 1 do
        redis.call('HDEL', KEYS[1], remembered[i])
    end
    local made = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]
    redis.call('HSET', KEYS[1], 'current', ARGV[2], 'spent:' .. presented, ARGV[5] .. ' ' .. made)
    redis.call('PEXPIRE', KEYS[1], ARGV[7])
    return { ARGV[2], ARGV[3], ARGV[4] }
end
if spent then
    local at, successor, access, second = string.match(spent, '^(%d+) (%S+) (%S+) (%S+)$')
    if math.abs(now - tonumber(at)) <= grace then
        -- Two tabs that refresh at once are not theft: both get the same successor.
        return { successor, access, second }
    end
elseif now - tonumber(ARGV[9]) * 1000 <= grace then
    return { 'forgotten' }
end
-- The token is used a second time: it or its successor was stolen.
redis.call('DEL', KEYS[1])
return {}
