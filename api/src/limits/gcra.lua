-- Checks whether the quota of KEYS[1] allows one more request. With ARGV[3] = 'count' an allowed request is counted, with
-- 'peek' it is not.
-- ARGV[1] is the time in which one request is earned back, ARGV[2] the window, both in microseconds.
-- ARGV[4] is the time in microseconds, or empty for Redis' own clock, so that replicas agree.
-- The value is the time at which the whole quota is there again. Of a quota that was changed it can be further away than the
-- window: then the new one is used up, and is earned back at its own pace.
-- The key lives two hours longer than that: a full Redis evicts what expires first, and counts must not go before cached
-- orders do (an hour), or a client that fills the memory would get a new quota.
-- Returns {allowed, time until the whole quota is there, time until one request is allowed}.
local interval, window, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local kept_ms = 2 * 60 * 60 * 1000
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local stored = tonumber(redis.call('GET', KEYS[1])) or 0
local full = math.min(math.max(stored, now), now + window)
local function keep(value)
    redis.call('SET', KEYS[1], string.format('%.0f', value), 'PX', math.ceil((value - now) / 1000) + kept_ms)
end
if full < stored then
    keep(full)
end
local after = full + interval
local wait = math.max(after - now - window, 0)
if wait > 0 then
    return { 0, full - now, wait }
end
if ARGV[3] == 'peek' then
    return { 1, full - now, 0 }
end
keep(after)
return { 1, after - now, 0 }
