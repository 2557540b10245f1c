<?php
// A receiver of Framehook's callbacks. Needs PHP 8.0 and nothing else.
//
//     FRAMEHOOK_CALLBACK_KEY=... php -S 127.0.0.1:9000 receiver.php
//
// Answers 200 only to callbacks whose two signatures are right, and prints one line for each event. PHP's own server is
// for trying it; behind a web server the same file serves one URL, and its lines go to the error log.

declare(strict_types=1);

// The largest callback stays under 6 KiB.
const BODY_BYTES_MAX = 64 * 1024;
// How far the header's timestamp may lie from our clock, as in the Standard Webhooks libraries.
const TOLERANCE_SECS = 300;
// A signature in the body is good for ten minutes after sending; a `t` further ahead was made for later use.
const LIFE_SECS = 600;

final class Refused extends Exception
{
}

/** The secret of the header signature: a key `whsec_...` is base64 of it, any other key is the secret itself. */
function webhook_secret(string $key): string
{
    if (!str_starts_with($key, 'whsec_')) {
        return $key;
    }
    $secret = base64_decode(substr($key, strlen('whsec_')), true);
    return $secret !== false && $secret !== '' ? $secret : throw new Refused('the callback key is malformed', 500);
}

/** Standard Webhooks: HMAC-SHA256 over id, timestamp and body. Returns the id. */
function check_headers(string $secret, string $body, int $now): string
{
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $timestamp = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if (!preg_match('/^\d{1,15}$/D', $timestamp) || abs($now - (int) $timestamp) > TOLERANCE_SECS) {
        throw new Refused('webhook-timestamp is missing or more than five minutes off', 401);
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $secret, true));
    // There are several signatures while the sender's key is being changed.
    foreach (explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $candidate) {
        if (hash_equals($expected, $candidate)) {
            return $id;
        }
    }
    throw new Refused('no signature in webhook-signature fits the body', 401);
}

/** CSS: `sign` is MD5 of key and `t`. Returns the event. */
function check_body(string $key, string $body, int $now): array
{
    $event = json_decode($body, true);
    $t = is_array($event) ? (string) ($event['t'] ?? '') : '';
    $sign = is_array($event) ? ($event['sign'] ?? null) : null;
    if (!preg_match('/^\d{1,15}$/D', $t) || !is_string($sign)) {
        throw new Refused('the body is not an event with t and sign', 401);
    }
    if ($now > (int) $t || (int) $t > $now + LIFE_SECS + TOLERANCE_SECS) {
        throw new Refused('t has passed or lies too far ahead', 401);
    }
    if (!hash_equals(md5($key . $t), strtolower($sign))) {
        throw new Refused('sign is not MD5(key + t)', 401);
    }
    return $event;
}

/**
 * Whether an id comes for the first time. PHP forgets everything between two requests, so an id is a file here, made by an
 * operation that only one of two can win. Use a unique column in your database instead, written in the transaction that
 * holds what you did: then nothing is lost by dying in between, and old ids can be deleted.
 */
function is_first(string $id): bool
{
    $directory = getenv('FRAMEHOOK_SEEN_DIR') ?: sys_get_temp_dir() . '/framehook-seen';
    if (!is_dir($directory) && !@mkdir($directory, 0700, true) && !is_dir($directory)) {
        throw new Refused('ids cannot be kept', 500);
    }
    // The hash makes a file name of whatever the id holds.
    $path = $directory . '/' . hash('sha256', $id);
    $file = @fopen($path, 'x');
    if ($file === false && !file_exists($path)) {
        throw new Refused('ids cannot be kept', 500);
    }
    return $file !== false;
}

function describe(array $event): string
{
    $text = fn (string $field): string => is_scalar($event[$field] ?? null) ? (string) $event[$field] : '?';
    $stream = "{$text('app')}/{$text('appname')}/{$text('stream_id')}";
    return match ($event['event_type'] ?? null) {
        200 => "snapshot $stream {$text('width')}x{$text('height')} {$text('pic_full_url')}",
        1 => "push-began $stream",
        0 => "push-ended $stream after {$text('push_duration')} ms",
        default => "event-{$text('event_type')} $stream",
    };
}

function receive(): void
{
    if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
        throw new Refused('callbacks are POST requests', 405);
    }
    // From the environment, since a command line can be read by every user of the machine.
    $key = getenv('FRAMEHOOK_CALLBACK_KEY') ?: throw new Refused('FRAMEHOOK_CALLBACK_KEY is not set', 500);
    // The bytes as they came: a body that was parsed and written again has another signature.
    $body = (string) file_get_contents('php://input', false, null, 0, BODY_BYTES_MAX + 1);
    if (strlen($body) > BODY_BYTES_MAX) {
        throw new Refused('the body is longer than a callback can be', 413);
    }
    $now = time();
    $id = check_headers(webhook_secret($key), $body, $now);
    $event = check_body($key, $body, $now);
    if (is_first($id)) {
        error_log(describe($event));
    }
}

try {
    receive();
    $status = 200;
    $message = '';
} catch (Refused $why) {
    $status = $why->getCode();
    $message = $why->getMessage();
    error_log("refused: $message");
}
http_response_code($status);
header('content-type: application/json');
echo json_encode(['code' => $status === 200 ? 0 : 1, 'message' => $message]);
