-- What wrk sends: lines of a file, each with a fresh tag in its message ids.
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

function init(args)
  method, tag = args[1], args[4]
  headers["Authorization"] = args[3]
  if method == "POST" then headers["Content-Type"] = "application/json" end
  for line in io.lines(args[2]) do
    if method == "GET" then
      requests[#requests + 1] = wrk.format("GET", line, headers)
    else
      requests[#requests + 1] = split(line)
    end
  end
end

function request()
  number = number + 1
  local one = requests[number % #requests + 1]
  if method == "GET" then return one end
  return wrk.format("POST", nil, headers, table.concat(one, tag .. number .. "-"))
end

function done(summary, latency, _)
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"failed":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.errors.status + summary.errors.timeout
      + summary.errors.read + summary.errors.connect,
    latency:percentile(50), latency:percentile(99)))
end
