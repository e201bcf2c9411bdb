// The same call as in grant-svc/src/pay.ts, in Java.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Pay {
    public static void main(String[] args) throws Exception {
        var body = "{\"grantId\": \"" + args[0] + "\"}";
        var request = HttpRequest.newBuilder(URI.create("http://payment-svc/pay"))
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        var response = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.print(response.body());
    }
}
