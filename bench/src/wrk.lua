-- Sends the requests of a file, one after another. The file's lines:
--   token NUMBER JWT                     a token that requests refer to
--   send METHOD PATH NUMBER [BODY]       a request with that token
-- At the end it prints every latency that occurred, for the histogram of `bench`.

local requests, at = {}, 0

function init(args)
  local tokens = {}
  for line in io.lines(args[1]) do
    local number, jwt = line:match("^token (%d+) (%S+)$")
    if number then
      tokens[number] = "Bearer " .. jwt
    else
      local method, path, token, body = line:match("^send (%S+) (%S+) (%d+) ?(.*)$")
      local headers = { Authorization = tokens[token] }
      if body ~= "" then
        headers["Content-Type"] = "application/json"
      else
        body = nil
      end
      requests[#requests + 1] = wrk.format(method, path, headers, body)
    end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format("BENCH run %d %d", summary.requests, summary.duration))
  print(string.format("BENCH errors %d %d %d %d %d", errors.connect, errors.read, errors.write, errors.status,
    errors.timeout))
  for i = 1, #latency do
    local value, count = latency(i)
    print(string.format("BENCH latency %d %d", value, count))
  end
end
