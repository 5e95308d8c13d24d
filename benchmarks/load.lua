-- What wrk sends: lines of a file. `@@` in a line is where a fresh tag goes; a line of hex digits is a
-- body that is compressed already.
--   wrk ... -s load.lua URL -- METHOD FILE AUTHORIZATION TAG
local requests, method, headers, tag, number = {}, "GET", {}, "", 0

local function split(line)
  local parts, from = {}, 1
  while true do
    local at = string.find(line, "@@", from, true)
    if not at then break end
    parts[#parts + 1] = string.sub(line, from, at - 1)
    from = at + 2
  end
  parts[#parts + 1] = string.sub(line, from)
  return parts
end

local function bytes_of(line)
  return (string.gsub(line, "..", function(two) return string.char(tonumber(two, 16)) end))
end

function init(args)
  local packed = args[1] == "POST-gzip"
  method, tag = packed and "POST" or args[1], args[4]
  headers["Authorization"] = args[3]
  if method == "POST" then headers["Content-Type"] = "application/json" end
  if packed then headers["Content-Encoding"] = "gzip" end
  for line in io.lines(args[2]) do
    local parts = split(line)
    if #parts > 1 then
      requests[#requests + 1] = parts
    elseif packed then
      requests[#requests + 1] = wrk.format(method, nil, headers, bytes_of(line))
    elseif method == "GET" then
      requests[#requests + 1] = wrk.format(method, line, headers)
    else
      requests[#requests + 1] = wrk.format(method, nil, headers, line)
    end
  end
end

function request()
  number = number + 1
  local one = requests[number % #requests + 1]
  if type(one) == "string" then return one end
  local fresh = table.concat(one, tag .. number .. "-")
  if method == "GET" then return wrk.format(method, fresh, headers) end
  return wrk.format(method, nil, headers, fresh)
end

function done(summary, latency, _)
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"failed":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.errors.status + summary.errors.timeout
      + summary.errors.read + summary.errors.connect,
    latency:percentile(50), latency:percentile(99)))
end
