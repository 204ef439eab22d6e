-- Counts one request (ARGV[3] = 1), or takes one back (ARGV[3] = -1), against the quota of KEYS[1].
-- ARGV[1] is the time in which one request is earned back, ARGV[2] the window, both in microseconds.
-- The value is the time at which the whole quota would be there again. Redis' own clock counts, so that replicas agree.
-- The key outlives the time at which it means nothing any more: a full Redis evicts what would expire first, and counts
-- must not go before cached orders do (an hour), or whoever fills the memory would get a new quota.
-- Answers {allowed, time until the whole quota is there, time until one request would be allowed}.
local interval, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept_ms = 2 * 60 * 60 * 1000
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1])) or 0, now)
local after = math.max(full + cost * interval, now)
if cost > 0 and after - now > window then
    return { 0, full - now, after - now - window }
end
if after > now then
    redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + kept_ms)
else
    redis.call('DEL', KEYS[1])
end
return { 1, after - now, 0 }
