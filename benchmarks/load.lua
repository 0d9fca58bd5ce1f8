-- Sends each thread's own requests over its one connection and compares every answer with the one that is due.
-- wrk runs with as many threads as connections, so the answer that arrives belongs to the request that was sent last.
--
--   AUTHORIZATION="Basic ..." wrk -s load.lua URL -- FOLDER PATTERN [PAUSE]
--
-- FOLDER/N holds what thread N sends and expects: body, class and three probabilities, a line each, tabs between.
-- PATTERN finds (class and) probabilities in an answer.
-- PAUSE is how many milliseconds a thread waits before each request; without it, none.

local TOLERANCE = 1e-6
local threads = {}

function setup(thread)
    thread:set("number", #threads)
    table.insert(threads, thread)
end

function init(args)
    pattern = args[2]
    if args[3] then
        local pause = tonumber(args[3])
        function delay() return pause end
    end
    local headers = { ["Authorization"] = os.getenv("AUTHORIZATION"), ["Content-Type"] = "application/json" }
    cases, current, checked, wrong, example = {}, 0, 0, 0, ""
    for line in io.lines(args[1] .. "/" .. number) do
        local body, class, first, second, third = line:match("^([^\t]+)\t([^\t]+)\t([^\t]+)\t([^\t]+)\t([^\t]+)$")
        table.insert(cases, {
            request = wrk.format("POST", nil, headers, body),
            class = class, first = tonumber(first), second = tonumber(second), third = tonumber(third),
        })
    end
end

function request()
    current = current % #cases + 1
    return cases[current].request
end

local function near(text, number)
    local value = tonumber(text)
    return value ~= nil and math.abs(value - number) <= TOLERANCE
end

local function is_right(case, class, first, second, third)
    if not third then -- an answer of probabilities alone
        class, first, second, third = case.class, class, first, second
    end
    return class == case.class and near(first, case.first) and near(second, case.second) and near(third, case.third)
end

function response(status, _, body)
    checked = checked + 1
    if status ~= 200 or not is_right(cases[current], body:match(pattern)) then
        wrong = wrong + 1
        example = status .. " " .. body
    end
end

function done(summary, latency)
    local all_checked, all_wrong, an_example = 0, 0, ""
    for _, thread in ipairs(threads) do
        all_checked = all_checked + thread:get("checked")
        all_wrong = all_wrong + thread:get("wrong")
        an_example = thread:get("example") ~= "" and thread:get("example") or an_example
    end
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "checked": %d, "wrong": %d, '
            .. '"connect": %d, "read": %d, "write": %d, "timeout": %d}\n%s',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        all_checked, all_wrong, errors.connect, errors.read, errors.write, errors.timeout, an_example))
end
