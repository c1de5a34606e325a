package faulty

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Parse reads rules from text, separated by commas:
//
//	[OP][@KEY][#AT]=FAULT[:BYTES|:DELAY]
//
// as in "put#3=kill", "get@wal/=truncate:1000,=delay:50ms", "put@summary=lose".
func Parse(text string) ([]Rule, error) {
	var rules []Rule
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		rule, err := parseRule(part)
		if err != nil {
			return nil, fmt.Errorf("fault rule %q: %w", part, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func parseRule(text string) (Rule, error) {
	which, what, ok := strings.Cut(text, "=")
	if !ok {
		return Rule{}, fmt.Errorf("no '='")
	}
	var rule Rule
	if call, at, ok := strings.Cut(which, "#"); ok {
		n, err := strconv.Atoi(at)
		if err != nil || n < 1 {
			return Rule{}, fmt.Errorf("%q is not the number of a call", at)
		}
		which, rule.At = call, n
	}
	op, key, _ := strings.Cut(which, "@")
	rule.Op, rule.Key = Op(op), key
	switch rule.Op {
	case "", Get, Stat, List, Put, Delete:
	default:
		return Rule{}, fmt.Errorf("no method %q", op)
	}
	name, value, hasValue := strings.Cut(what, ":")
	rule.Fault = Fault(name)
	var err error
	switch rule.Fault {
	case Truncate, Kill:
		if hasValue {
			rule.Bytes, err = strconv.ParseInt(value, 10, 64)
		}
	case Delay, Throttle:
		if hasValue {
			rule.Delay, err = time.ParseDuration(value)
		}
	case Fail, Deny, LoseAnswer, Lose, KillAfter:
		if hasValue {
			err = fmt.Errorf("%s takes no value", name)
		}
	default:
		err = fmt.Errorf("no fault %q", name)
	}
	return rule, err
}
